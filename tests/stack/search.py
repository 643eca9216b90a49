"""Where a house could have left something, and the search for words in all of it."""

import base64
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import psutil

_SHARED = Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"), Path("/var/crash")
_SQLITE = b"SQLite format 3\0"
_NEAR_BYTES = 60  # of what stands before and after a hit, to tell whose it is


def forms(word: str) -> dict[str, bytes]:
    """A word of ASCII as it may stand in a file: plain is also as JSON and in a URL."""
    raw = word.encode()
    found = {
        "plain": raw,
        "UTF-16": word.encode("utf-16-le"),
        "UTF-16, big end first": word.encode("utf-16-be"),
        "hex": raw.hex().encode(),
        "percent": "".join(f"%{byte:02x}" for byte in raw).encode(),
        "percent, upper case": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "JSON escapes": "".join(f"\\u{byte:04x}" for byte in raw).encode(),
    }
    for shift in range(3):  # of its first byte among the three that become four letters
        text = base64.b64encode(b"\0" * shift + raw)
        # The letters at both ends are made of the neighbours too.
        found[f"base64, {shift}"] = text[4 if shift else 0 : -4]
    return found


class Search:
    """For some words (what they are → the word) in all of their forms."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._wanted = [
            (f"{what} ({form})", pattern)
            for what, word in words.items()
            for form, pattern in forms(word).items()
        ]

    def text(self, place: str, content: bytes) -> list[str]:
        """A line for each word and form that is there."""
        hits = []
        for what, pattern in self._wanted:
            at = content.find(pattern)
            if at >= 0:
                near = content[max(0, at - _NEAR_BYTES) : at + len(pattern) + _NEAR_BYTES]
                hits.append(f"{place}: {what} at {at}: {near!r}")
        return hits

    def file(self, path: Path) -> list[str]:
        """Its bytes; of a database, all that its tables say too."""
        try:
            # Journals are made long, and mostly empty. A word in UTF-16 ends with a zero.
            content = path.read_bytes().rstrip(b"\0") + b"\0"
        except OSError:
            return []  # gone
        hits = self.text(str(path), content)
        if content.startswith(_SQLITE):
            hits += self.text(f"{path}, its tables", _all_of(path))
        return hits

    def files(self, paths: Iterable[Path]) -> list[str]:
        """Each file once, whatever its names."""
        known, hits = set(), []
        for path in paths:
            with suppress(OSError):
                about = path.stat()
                if (about.st_dev, about.st_ino) not in known:
                    known.add((about.st_dev, about.st_ino))
                    hits += self.file(path)
        return hits


def own_files(*folders: Path) -> Iterator[Path]:
    """All files in the folders of a house."""
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent, name)
                if path.is_file() and not path.is_symlink():
                    yield path


def shared_files(since: float) -> Iterator[Path]:
    """Files in folders that everybody may write to, changed since (unix seconds)."""
    for path in own_files(*_SHARED):
        with suppress(OSError):
            if path.stat().st_mtime >= since:
                yield path


def held_files(pids: Iterable[int]) -> Iterator[Path]:
    """Files that these processes and their children have open, also those that have no name."""
    for process in _families(pids):
        folder = Path("/proc", str(process.pid), "fd")
        with suppress(OSError):
            yield from (path for path in list(folder.iterdir()) if path.is_file())


def _families(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            yield from (process, *process.children(recursive=True))


def _all_of(database: Path) -> bytes:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as opened:
        tables = [row[0] for row in opened.execute("SELECT name FROM sqlite_master")]
        rows = []
        for table in tables:
            with suppress(sqlite3.OperationalError):  # an index
                rows += opened.execute(f'SELECT * FROM "{table}"').fetchall()
    return repr(rows).encode()
