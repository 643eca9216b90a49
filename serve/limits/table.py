"""The counts that all gateway processes of a machine share."""

from pathlib import Path


class Table:
    """`file` None: this process alone; otherwise a file that several processes map."""

    def __init__(self, file: Path | None, slot: int = 0) -> None:
        self._file, self._slot = file, slot
