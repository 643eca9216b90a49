"""How a fetch is drawn: a bar in a terminal, plain lines elsewhere. Always on stderr."""

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from serve.cli import output
from serve.units import show_bytes

_LINE_EVERY_SHARE = 0.25


def progress() -> "Bar | Lines":
    """What fits stderr."""
    return Bar() if sys.stderr.isatty() else Lines()


class Bar:
    """One moving line per fetch."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def start(self, label: str, total_bytes: int | None, total_files: int = 0) -> None:
        self.finish()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            expand=True,
        )
        self._bar.add_task(label, total=total_bytes)
        self._bar.start()

    def advance(self, n_bytes: int) -> None:
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], n_bytes)

    def file_done(self) -> None:
        pass

    def note(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            output.say(text)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Lines:
    """A line at the start, at every quarter, and for every note."""

    def __init__(self) -> None:
        self._label = ""
        self._total_bytes = 0
        self._done_bytes = 0
        self._next_share = 1.0

    def start(self, label: str, total_bytes: int | None, total_files: int = 0) -> None:
        self._label, self._total_bytes, self._done_bytes = label, total_bytes or 0, 0
        self._next_share = _LINE_EVERY_SHARE
        size = f" ({show_bytes(total_bytes)})" if total_bytes else ""
        output.say(f"{label}{size}")

    def advance(self, n_bytes: int) -> None:
        self._done_bytes += n_bytes
        while self._total_bytes and self._done_bytes >= self._next_share * self._total_bytes:
            output.say(f"{self._label}: {self._next_share:.0%}")
            self._next_share += _LINE_EVERY_SHARE

    def file_done(self) -> None:
        pass

    def note(self, text: str) -> None:
        output.say(text)

    def finish(self) -> None:
        pass
