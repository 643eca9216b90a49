"""Manifests as we write them are read by hand; on all others pydantic has the last word."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from serve.store import manifest as seals
from serve.store import seal_form
from serve.store.manifest import Damage, FileRecord, Manifest, digest_of
from serve.store.paths import is_safe_path

FILES = (
    FileRecord("config.json", 12, "a" * 64, 5, 6, "b" * 40, 7),
    FileRecord("model.safetensors", 0, "c" * 64, 5),
)
SEALED = Manifest(
    2, "m", "hf", "org/m", "main", "d" * 40, Path("weights/m"), FILES, 1.5, digest_of(FILES), 2.5,
    damage=Damage("config.json", "a", "b", 3.5),
)  # fmt: skip
RECORD = json.loads(seal_form.text_of(SEALED))
MISSING = object()
VALUES: tuple[Any, ...] = (
    MISSING, None, 0, -1, 2, 2.0, 1.5, True, "", "x", "2", "hf", "/x", [], {}, [1], {"a": 1},
    "a" * 40, "A" * 40, "a" * 64, "a" * 63 + "\n", "a" * 39 + "g",
)  # fmt: skip


def changed() -> Iterator[dict[str, Any]]:
    """The record with one value that is another."""
    for name in (*RECORD, "other"):
        yield from (_with(RECORD, name, value) for value in VALUES)
    for name in (*RECORD["files"][0], "other"):
        for value in VALUES:
            yield RECORD | {"files": [_with(RECORD["files"][0], name, value), RECORD["files"][1]]}
    for name in (*RECORD["damage"], "other"):
        yield from (RECORD | {"damage": _with(RECORD["damage"], name, value)} for value in VALUES)


def _with(record: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    rest = {key: each for key, each in record.items() if key != name}
    return rest if value is MISSING else rest | {name: value}


def by_pydantic(home: Path, record: Any) -> list[Manifest]:
    try:
        found = seal_form.parsed(Manifest, record)
    except ValueError:
        return []
    is_whole = digest_of(found.files) == found.digest
    if not is_whole or not all(is_safe_path(file.path) for file in found.files):
        return []
    return [replace(found, path=home / found.path)]


def test_both_ways_of_reading_agree(tmp_path: Path) -> None:
    seals.folder(tmp_path).mkdir()
    file, taken = seals.folder(tmp_path) / "m--dddddddddddd.json", 0
    for record in changed():
        if record.get("format") == 1:
            continue
        file.write_text(json.dumps(record))
        found = list(seals.manifests(tmp_path))
        assert found == by_pydantic(tmp_path, record), record
        taken += bool(found)
    assert taken > 20
