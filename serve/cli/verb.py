"""A verb that is in the help from the start, and is imported when somebody calls it."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from serve.cli.late import read


class Verb(TyperCommand):
    """One row of the table: its name, its place, and its line of the help.

    The line is the first paragraph of the docstring there; a test proves it.
    """

    def __init__(self, name: str, place: str, line: str) -> None:
        super().__init__(name, help=line)
        self._place = place

    def read(self) -> TyperCommand:
        """The whole verb, with its flags; imports what it needs."""
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(read(self._place))
        command = typer.main.get_command(alone)
        assert isinstance(command, TyperCommand)
        return command

    def make_context(self, *given: Any, **named: Any) -> Any:
        """Where a command line, a call for help or a completion comes to this verb."""
        return self.read().make_context(*given, **named)


def group(name: str, line: str, *verbs: Verb) -> TyperGroup:
    """Verbs that are typed after a word of their own: `inhouse engine ls`."""
    return TyperGroup(name=name, help=line, commands=verbs)
