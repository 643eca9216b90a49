"""What starts have taught: values that failed ones made us choose otherwise, in a small file."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serve.disk import disk_errors, locked, write_atomically
from serve.errors import StoreError
from serve.log import fields

# What was too much may not be any more: another driver, another neighbour. So it is tried again.
_KEPT_S = 30 * 24 * 3600.0
_MOST = 200
_LARGEST_BYTES = 2**20
_log = logging.getLogger(__name__)

Value = int | float


@dataclass(frozen=True, slots=True)
class Lesson:
    """`key` names weights, device and settings (`lesson_key`); `values`: field of the wishes →
    value with which the engine became ready. `learned_at`: unix seconds."""

    key: str
    learned_at: float
    values: Mapping[str, Value]


def lesson_key(weights: str, device: str, settings: str) -> str:
    """Under which conditions a lesson holds: digest of the weights, name of the device, and the
    operator's settings, in any form that is the same for the same."""
    return hashlib.sha256("\0".join((weights, device, settings)).encode()).hexdigest()


class Lessons:
    """The lessons in `path`. `path` None: nothing is kept. Never fails: a file that cannot be read
    holds no lessons, and one that cannot be written is told in the log."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def find(self, key: str) -> Mapping[str, Value]:
        """The values that worked under these conditions; empty if nothing was learned."""
        return next((lesson.values for lesson in self._read() if lesson.key == key), {})

    def keep(self, key: str, values: Mapping[str, Value]) -> None:
        """Instead of what was known under this key."""
        if self._path is None:
            return
        new = Lesson(key, time.time(), dict(values))
        try:
            with locked(self._path.with_suffix(".lock"), lambda: None), disk_errors(self._path):
                others = [lesson for lesson in self._read() if lesson.key != key]
                content = json.dumps([asdict(lesson) for lesson in (new, *others)[:_MOST]])
                write_atomically(self._path, content.encode())
        except StoreError as error:
            _log.warning("not remembered: %s", fields(file=str(self._path), problem=error))

    def _read(self) -> tuple[Lesson, ...]:
        if self._path is None:
            return ()
        try:
            with self._path.open("rb") as file:
                lessons = _lessons(json.loads(file.read(_LARGEST_BYTES)))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, TypeError, RecursionError) as error:
            _log.warning("not read: %s", fields(file=str(self._path), problem=error))
            return ()
        now = time.time()
        return tuple(lesson for lesson in lessons if 0 <= now - lesson.learned_at < _KEPT_S)


def _lessons(records: Any) -> list[Lesson]:
    """By hand and not by pydantic: see `form.py`. ValueError or TypeError for what are none."""
    if not isinstance(records, list):
        raise TypeError("not a list")
    return [_lesson(record) for record in records]


def _lesson(record: Any) -> Lesson:
    lesson = Lesson(**record)
    are_numbers = all(type(value) in (int, float) for value in dict(lesson.values).values())
    if not (are_numbers and isinstance(lesson.key, str)):
        raise ValueError("not a lesson")
    if type(lesson.learned_at) not in (int, float):
        raise TypeError("a lesson without a time")
    return lesson
