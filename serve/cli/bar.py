"""A fetch in a terminal: one moving line with bytes, files, speed and the time that is left."""

import threading

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from serve.cli import output
from serve.units import show_bytes


class _Speed(ProgressColumn):
    """In the units of the sizes beside it; rich's own column has powers of ten."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{show_bytes(int(speed))}/s" if speed else "", style="progress.data.speed")


class Bar:
    """One moving line per fetch; those that are over stay above it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._total_files = self._done_files = 0

    def start(self, label: str, total_bytes: int | None, total_files: int = 0) -> None:
        self.finish()
        self._total_files, self._done_files = total_files, 0
        bar = Progress(
            TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=2)
            ),
            BarColumn(bar_width=None, table_column=Column(ratio=2)),
            TextColumn("{task.fields[files]}", table_column=Column(no_wrap=True)),
            DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)),
            _Speed(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            console=Console(stderr=True),
            expand=True,
        )
        bar.add_task(label, total=total_bytes, files=self._files())
        bar.start()
        self._bar = bar

    def advance(self, n_bytes: int) -> None:
        if bar := self._bar:
            bar.advance(bar.task_ids[0], n_bytes)

    def file_done(self) -> None:
        with self._lock:
            self._done_files += 1
            if bar := self._bar:
                bar.update(bar.task_ids[0], files=self._files())

    def note(self, text: str) -> None:
        if bar := self._bar:
            bar.console.print(text, highlight=False, markup=False)
        else:
            output.say(text)

    def finish(self) -> None:
        if bar := self._bar:
            self._bar = None
            bar.stop()

    def _files(self) -> str:
        return f"{self._done_files}/{self._total_files} files" if self._total_files else ""
