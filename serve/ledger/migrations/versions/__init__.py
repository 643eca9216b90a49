"""One file for each step, named by its revision."""

__all__: list[str] = []
