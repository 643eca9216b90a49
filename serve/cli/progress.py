"""How a fetch is drawn on stderr: one moving line in a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Callable

from serve.cli import output
from serve.cli.late import late
from serve.store import Progress
from serve.units import show_bytes, show_seconds

_LINE_EVERY_SHARE, _LINE_EVERY_S = 0.25, 10.0

_bar = late("serve.cli.bar:Bar")


def progress() -> Progress:
    """What fits stderr."""
    shown: Progress = _bar() if sys.stderr.isatty() else Lines()
    return shown


class Lines:
    """A line at the start, at every quarter or every ten seconds, at the end, for every note."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._next_share = self._told_at = 0.0
        self._begin("", 0, 0)

    def start(self, label: str, total_bytes: int | None, total_files: int = 0) -> None:
        with self._lock:
            self._begin(label, total_bytes or 0, total_files)
            parts = [show_bytes(total_bytes)] if total_bytes else []
            parts += [_files(total_files)] if total_files else []
            output.say(f"{label} ({', '.join(parts)})" if parts else label)

    def advance(self, n_bytes: int) -> None:
        with self._lock:
            self._done_bytes += n_bytes
            now = self._clock()
            share = self._done_bytes / self._total_bytes if self._total_bytes else 0.0
            is_quarter = self._next_share <= share < 1
            if is_quarter or (self._total_bytes and now - self._told_at >= _LINE_EVERY_S):
                output.say(f"{self._label}: {share:.0%}, {self._state(now)}")
                self._told_at = now
                self._next_share = (share // _LINE_EVERY_SHARE + 1) * _LINE_EVERY_SHARE

    def file_done(self) -> None:
        with self._lock:
            self._done_files += 1

    def note(self, text: str) -> None:
        with self._lock:
            output.say(text)

    def finish(self) -> None:
        with self._lock:
            if self._total_bytes and self._done_bytes >= self._total_bytes:
                took_s = self._clock() - self._began_at
                output.say(
                    f"{self._label}: {show_bytes(self._total_bytes)} in {show_seconds(took_s)}"
                )
            self._begin("", 0, 0)

    def _begin(self, label: str, total_bytes: int, total_files: int) -> None:
        self._label, self._total_bytes, self._total_files = label, total_bytes, total_files
        self._done_bytes = self._done_files = 0
        self._next_share = _LINE_EVERY_SHARE
        self._began_at = self._told_at = self._clock()

    def _state(self, now: float) -> str:
        """`1.2 GiB of 4.6 GiB, 3/12 files, 120.0 MiB/s, 29.0 s left`."""
        parts = [f"{show_bytes(self._done_bytes)} of {show_bytes(self._total_bytes)}"]
        if self._total_files:
            parts.append(f"{self._done_files}/{_files(self._total_files)}")
        took_s = now - self._began_at
        if took_s > 0 and self._done_bytes > 0:
            speed = self._done_bytes / took_s
            left_s = (self._total_bytes - self._done_bytes) / speed
            parts += [f"{show_bytes(int(speed))}/s", f"{show_seconds(left_s)} left"]
        return ", ".join(parts)


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"
