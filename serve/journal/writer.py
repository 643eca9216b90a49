"""Where a gateway writes."""

from pathlib import Path
from typing import Literal

from serve.journal.records import End, Refusal, Start


class Journal:
    """One per gateway process; `folder` None: nothing is kept.

    A record that `start`, `end` or `refuse` took survives the end of the process at once, and that
    of the machine after the next commit: every 20 ms ("group"), or when
    `committed` returns ("each").
    """

    def __init__(self, folder: Path | None, slot: int, commit: Literal["group", "each"]) -> None:
        self._folder, self._slot, self.commit = folder, slot, commit

    def start(self, record: Start) -> None:
        """A request is about to be sent to an engine."""

    def end(self, record: End) -> None:
        """A request is over."""

    def refuse(self, record: Refusal) -> None:
        """A request was refused."""

    def take_slot(self) -> int:
        """A place in the flight table, for `Start.slot`; its count of chunks is 0."""
        return 0

    def count(self, slot: int, chunks: int) -> None:
        """So many events of the answer have been passed on so far; survives this process."""

    def free_slot(self, slot: int) -> None:
        """The request is over."""

    async def committed(self) -> None:
        """Everything that was written so far is on the disk; at once when commit is "group"."""

    def close(self) -> None:
        """Write what there is; nothing can be written any more."""
