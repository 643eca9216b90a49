"""The command line: puts the rooms together, and is the only one that prints.

In: argv, environment, terminal. Out: data on stdout, talk on stderr, an exit code from one table.
"""

from serve.cli.app import main

__all__ = ["main"]
