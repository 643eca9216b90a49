"""The form of profiles on disk, in the book and in what is shared: one JSON format for both.

Read by hand and not by pydantic, whose import would cost `inhouse plan` a third of its time.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from serve.errors import BadFile
from serve.profiles.profile import Profile, ProfileKey

FORMAT = 1
# A profile takes about 900 bytes: room for some 18,000 of them, and a limit for what is no such
# file at all.
LARGEST_BYTES = 16 * 2**20
# No device has a petabyte, nor room for so many tokens.
_MOST = 2**50


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a field may hold, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _text(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and least <= len(value) <= most


def _or_null(kind: _Kind) -> _Kind:
    return _Kind(f"{kind.words}, or null", lambda value: value is None or kind.holds(value))


_WORDS = _Kind("a text of 1 to 300 characters", _text(1, 300))
_COUNT = _Kind("a whole number from 1", _whole(1, 2**31))
_SIZE = _or_null(_Kind("a whole number from 0", _whole(0, _MOST)))
_SECONDS = _Kind(
    "a number of seconds",
    lambda value: type(value) in (int, float) and 0 <= value < _MOST and isfinite(value),
)

_FILE: dict[str, _Kind] = {
    "format": _Kind(str(FORMAT), _whole(FORMAT, FORMAT)),
    "profiles": _Kind("a list", lambda value: isinstance(value, list)),
}
_KEY: dict[str, _Kind] = {
    "weights": _WORDS,
    "device": _WORDS,
    "engine_version": _WORDS,
    "tensor_parallel": _COUNT,
    "pipeline_parallel": _COUNT,
    "data_parallel": _COUNT,
    "max_num_batched_tokens": _COUNT,
    "max_num_seqs": _COUNT,
    "kv_dtype": _WORDS,
    "is_eager": _Kind("true or false", lambda value: isinstance(value, bool)),
    "more": _Kind("a text of at most 64 characters", _text(0, 64)),
}
_PROFILE: dict[str, _Kind] = {
    "key": _Kind("an object", lambda value: isinstance(value, dict)),
    "measured_at": _SECONDS,
    "model": _Kind("a text of at most 300 characters", _text(0, 300)),
    "weights_bytes": _SIZE,
    "activation_bytes": _SIZE,
    "graph_bytes": _SIZE,
    "other_bytes": _SIZE,
    "budget_bytes": _SIZE,
    # Less than nothing: of an engine that had no room for its cache, and said by how much.
    "available_kv_bytes": _or_null(_Kind("a whole number", _whole(-_MOST, _MOST))),
    "kv_blocks": _SIZE,
    "block_tokens": _SIZE,
    "kv_tokens": _SIZE,
    "ready_after_s": _or_null(_SECONDS),
    "outcome": _Kind("ready or failed", lambda value: value in ("ready", "failed")),
}


def to_text(profiles: Iterable[Profile]) -> str:
    """The file's content; the same profiles give the same text."""
    record = {"format": FORMAT, "profiles": [asdict(profile) for profile in profiles]}
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def read_file(path: Path) -> tuple[Profile, ...]:
    """The profiles in a file, as they stand there.

    FileNotFoundError if there is none; BadFile, with place and problem, if it is none of profiles,
    of another format, or too large to be one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadFile(str(path), error.strerror or str(error)) from error
    if len(content) > LARGEST_BYTES:
        raise BadFile(str(path), f"is larger than {LARGEST_BYTES} bytes")
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadFile(str(path), f"is not JSON: {error}") from error
    try:
        return _profiles(record)
    except ValueError as error:
        raise BadFile(str(path), str(error)) from error


def _profiles(record: Any) -> tuple[Profile, ...]:
    """ValueError, with place and problem, for what is none."""
    if not isinstance(record, dict):
        raise ValueError("is not an object")
    given = record.get("format")
    if given is not None and given != FORMAT:
        raise ValueError(f"is of a format that is unknown here: {given!r:.80}")
    _check(record, _FILE, "")
    return tuple(_profile(each, f"profiles.{n}.") for n, each in enumerate(record["profiles"]))


def _profile(record: Any, place: str) -> Profile:
    if not isinstance(record, dict):
        raise ValueError(f"{place[:-1]}: is not an object")
    _check(record, _PROFILE, place)
    _check(record["key"], _KEY, f"{place}key.")
    return Profile(**{**record, "key": ProfileKey(**record["key"])})


def _check(record: Mapping[str, Any], kinds: Mapping[str, _Kind], place: str) -> None:
    for name in record:
        if name not in kinds:
            raise ValueError(f"{place}{name:.80}: is unknown here")
    for name, kind in kinds.items():
        if name not in record:
            raise ValueError(f"{place}{name}: is missing")
        if not kind.holds(record[name]):
            raise ValueError(f"{place}{name}: must be {kind.words}: {record[name]!r:.80}")
