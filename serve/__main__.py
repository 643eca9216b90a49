"""`python -m serve` is `inhouse`."""

from serve.cli import main

main()
