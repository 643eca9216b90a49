"""Seals: one small JSON file per held revision. Weights without a manifest do not exist."""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from serve.catalog import ModelSpec
from serve.disk import sync, write_atomically
from serve.log import fields
from serve.sources import KINDS, Kind, show_source
from serve.store.paths import is_safe_path

_log = logging.getLogger(__name__)
_STRICT = {"extra": "forbid"}
_RETIRED = ".leaving"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class _Rule:
    """What pydantic is to ask of a value, said without importing it: a listing does not need it."""

    name: str
    value: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(source) | {self.name: self.value}


Sha256 = Annotated[str, _Rule("pattern", r"^[0-9a-f]{64}$")]
_Name = Annotated[
    str, _Rule("pattern", r"^([0-9a-f]{40}|[0-9a-f]{64})$")
]  # of content, by a source


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of the weights.

    `mtime_ns`, `inode` and `ctime_ns` say whether it may have changed since it was hashed (None:
    not recorded). `oid` is the source's own name for the content: the sha256 of big files (LFS,
    Xet), git's blob id of the others; None where the source has none.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = _STRICT

    path: str
    size: Annotated[int, _Rule("ge", 0)]
    sha256: Sha256
    mtime_ns: int
    inode: int | None = None
    oid: _Name | None = None
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source has put on disk, complete and verified, still without a seal."""

    path: Path
    revision: str
    files: tuple[FileRecord, ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """Why weights are in quarantine: a file that is not what was verified."""

    __pydantic_config__: ClassVar[Mapping[str, str]] = _STRICT

    file: str
    expected: str
    actual: str
    found_at: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """The seal of one revision.

    `asked` is what was asked for inside the source (a branch, a wheel's member); `revision` is what
    that was: a commit, the wheel's sha256, a folder's digest. `digest` is the sha256 over the
    sorted list of (sha256, size, path). `is_chosen`: the operator named the source, not the
    catalog. `via`: how it came if not straight from the source ("bundle x.inhouse"). `damage`: the
    weights are in quarantine. Times are in Unix seconds.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = _STRICT

    format: Literal[2]
    name: str
    kind: Kind
    source: str
    asked: str
    revision: _Name
    path: Path
    files: tuple[FileRecord, ...]
    sealed_at: float
    digest: Sha256
    verified_at: float = 0.0
    is_chosen: bool = False
    via: str = ""
    license: str = ""
    damage: Damage | None = None

    @property
    def total_bytes(self) -> int:
        return sum(record.size for record in self.files)

    @property
    def is_yours(self) -> bool:
        """A folder of the user's own: used where it lies, and never written to."""
        return self.kind == "dir" and not self.via


def digest_of(files: Iterable[FileRecord]) -> str:
    """The sha256 in hex that stands for exactly these files."""
    lines = (f"{record.sha256} {record.size} {record.path}\n" for record in files)
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def slug(name: str) -> str:
    """The name as a part of a file name; different names give different slugs."""
    if _PLAIN_NAME.fullmatch(name) and len(name) <= 128:
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:100]
    return f"{plain or 'model'}.{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def seal(home: Path, manifest: Manifest) -> None:
    """Write the manifest, last of all and in one step: from here on the weights exist."""
    inside = manifest.path.is_relative_to(home)
    stored = replace(manifest, path=manifest.path.relative_to(home)) if inside else manifest
    from serve.store import seal_form

    write_atomically(_file(home, manifest), seal_form.text_of(stored))


def unseal(home: Path, manifest: Manifest) -> None:
    """Remove the manifest: from here on the weights do not exist."""
    _file(home, manifest).unlink(missing_ok=True)
    _used_file(home, manifest).unlink(missing_ok=True)


def retire(home: Path, manifest: Manifest) -> None:
    """From here on the weights do not exist, and it is on record that their files must go."""
    file = _file(home, manifest)
    if file.exists():
        file.replace(_retired_file(home, manifest))
        sync(folder(home))


def retired(home: Path) -> tuple[Manifest, ...]:
    """The weights whose files must go: somebody is at it, or was cut short."""
    found = (_read(home, file) for file in sorted(folder(home).glob(f"*.json{_RETIRED}")))
    return tuple(one for one in found if one)


def bury(home: Path, manifest: Manifest) -> None:
    """The files of retired weights are gone."""
    _used_file(home, manifest).unlink(missing_ok=True)
    _retired_file(home, manifest).unlink(missing_ok=True)


def manifests(home: Path) -> tuple[Manifest, ...]:
    """All seals, by name and age. A file that is none (a newer format, damaged) seals nothing."""
    found = (_read(home, file) for file in sorted(folder(home).glob("*.json")))
    return tuple(sorted((m for m in found if m), key=lambda m: (m.name, m.sealed_at)))


def folder(home: Path) -> Path:
    """Where the manifests lie."""
    return home / "manifests"


def new_manifest(spec: ModelSpec, asked: str, fetched: Fetched) -> Manifest:
    """The seal for what was fetched just now from the spec's source."""
    files, now = tuple(sorted(fetched.files, key=lambda record: record.path)), time.time()
    return Manifest(
        2, spec.name, spec.source.kind, show_source(spec.source), asked, fetched.revision,
        fetched.path, files, sealed_at=now, digest=digest_of(files), verified_at=now,
        is_chosen=spec.is_chosen, license=spec.license.name,
    )  # fmt: skip


def is_complete(manifest: Manifest) -> bool:
    """Whether every file is there with its size."""
    # Joined as text: a listing asks this of thousands of files, and paths cost more than the disk.
    root = str(manifest.path)
    return all(_stat(f"{root}/{record.path}")[0] == record.size for record in manifest.files)


def is_there(manifest: Manifest) -> bool:
    """Whether every file is there, with whatever content."""
    return all((manifest.path / record.path).is_file() for record in manifest.files)


def changed(manifest: Manifest) -> tuple[FileRecord, ...]:
    """The cheap check: files that are not there as they were when they were hashed.

    It sees another size, time of content (mtime), time of any change (ctime) or inode. So it sees
    every write, and a tool that sets the mtime back afterwards; ctime cannot be set. A chmod or
    a new hard link looks like a change too and costs one full check. What it cannot see is a disk
    that forgets, and writes past the file system or with the clock set back: `verify` sees those.
    """
    return tuple(record for record in manifest.files if not is_unchanged(manifest.path, record))


def is_unchanged(root: Path, record: FileRecord) -> bool:
    """Whether the file is there as it was when it was hashed, by the cheap check."""
    size, mtime_ns, inode, ctime_ns = _stat(root / record.path)
    return (
        (size, mtime_ns) == (record.size, record.mtime_ns)
        and record.inode in (None, inode)
        and record.ctime_ns in (None, ctime_ns)
    )


def record_of(root: Path, path: str, sha256: str, oid: str | None = None) -> FileRecord:
    """The record of a file that was just hashed."""
    size, mtime_ns, inode, ctime_ns = _stat(root / path)
    return FileRecord(path, size, sha256, mtime_ns, inode, oid, ctime_ns)


def mark_used(home: Path, manifest: Manifest) -> None:
    """Note that the weights are loaded now."""
    _used_file(home, manifest).touch()


def used_at(home: Path, manifest: Manifest) -> float | None:
    """When the weights were last loaded; None: never."""
    try:
        return _used_file(home, manifest).stat().st_mtime
    except OSError:
        return None


def _stat(path: Path | str) -> tuple[int, int, int, int]:
    """Size, time of content, inode and time of any change; -1 each if there is no such file."""
    try:
        found = os.stat(path)  # noqa: PTH116  (text is meant, see above)
    except OSError:
        return -1, -1, -1, -1
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns


def _retired_file(home: Path, manifest: Manifest) -> Path:
    file = _file(home, manifest)
    return file.with_name(file.name + _RETIRED)


def _used_file(home: Path, manifest: Manifest) -> Path:
    return _file(home, manifest).with_suffix(".used")


def _file(home: Path, manifest: Manifest) -> Path:
    return folder(home) / f"{slug(manifest.name)}--{manifest.revision[:12]}.json"


def _read(home: Path, file: Path) -> Manifest | None:
    try:
        found = _parsed(_as_format_2(json.loads(file.read_bytes())))
    except (OSError, ValueError) as error:
        _log.warning("a manifest cannot be read; its weights count as not pulled: %s",
                     fields(file=file, reason=str(error)))  # fmt: skip
        return None
    whole = digest_of(found.files) == found.digest
    if not whole or not all(is_safe_path(record.path) for record in found.files):
        _log.warning(
            "a manifest is damaged; its weights count as not pulled: %s", fields(file=file)
        )
        return None
    return replace(found, path=home / found.path)


def _parsed(record: Any) -> Manifest:
    """ValueError that says what is wrong."""
    found = _as_written(record)
    if found is not None:
        return found
    # Pydantic, which it needs, takes longer to import than a hundred manifests to be read.
    from serve.store import seal_form

    return seal_form.parsed(Manifest, record)


def _as_written(record: Any) -> Manifest | None:
    """The manifest of a record that is in all as we write it; None leaves it to pydantic."""
    try:
        files = tuple(FileRecord(**file) for file in record["files"])
        damage = None if record.get("damage") is None else Damage(**record["damage"])
        changed = {"path": Path(record["path"]), "files": files, "damage": damage}
        found = Manifest(**(record | changed))
    except (TypeError, KeyError, AttributeError):
        return None
    is_usual = (
        found.format == 2
        and type(found.format) is int
        and found.kind in KINDS
        and type(record["path"]) is str
        and _are(str, found.name, found.source, found.asked, found.via, found.license)
        and _are(str, found.revision, found.digest)
        and _are(float, found.sealed_at, found.verified_at)
        and isfinite(found.sealed_at) and isfinite(found.verified_at)
        and type(found.is_chosen) is bool
        and _is_name(found.revision) and _is_sha256(found.digest)
        and all(map(_is_usual_file, files))
        and (damage is None or _is_usual_damage(damage))
    )  # fmt: skip
    return found if is_usual else None


def _is_usual_file(file: FileRecord) -> bool:
    return (
        _are(str, file.path, file.sha256)
        and _are(int, file.size, file.mtime_ns)
        and file.size >= 0
        and _is_sha256(file.sha256)
        and (file.inode is None or type(file.inode) is int)
        and (file.ctime_ns is None or type(file.ctime_ns) is int)
        and (file.oid is None or (type(file.oid) is str and _is_name(file.oid)))
    )


def _is_usual_damage(damage: Damage) -> bool:
    return _are(str, damage.file, damage.expected, damage.actual) and _are(float, damage.found_at)


def _are(kind: type, *values: Any) -> bool:
    return all(type(value) is kind for value in values)


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and not text.strip("0123456789abcdef")


def _is_name(text: str) -> bool:
    return len(text) in (40, 64) and not text.strip("0123456789abcdef")


def _as_format_2(record: Any) -> Any:
    """Format 1 had no inodes, and other words for two kinds."""
    if not isinstance(record, dict) or record.get("format") != 1:
        return record
    kinds = {"hub": "hf", "folder": "dir"}
    return record | {
        "format": 2,
        "kind": kinds.get(record.get("kind", ""), record.get("kind")),
        "verified_at": record.get("sealed_at", 0.0),
    }
