"""Seals: one small JSON file per held revision. Weights without a manifest do not exist."""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from serve.log import fields
from serve.store.disk import sha256_of, write_atomically

_log = logging.getLogger(__name__)
_STRICT = ConfigDict(extra="forbid")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SAFE_PATH = re.compile(r"[A-Za-z0-9_][\w.+ -]*(/[A-Za-z0-9_][\w.+ -]*)*", re.ASCII)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def is_safe_path(path: str) -> bool:
    """Whether a file name that others chose stays inside the folder it is joined to."""
    return _SAFE_PATH.fullmatch(path) is not None


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of the weights. `mtime_ns` says whether it may have changed since it was hashed."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source has put on disk, complete and verified, still without a seal."""

    path: Path
    revision: str
    files: tuple[FileRecord, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The seal of one revision.

    `asked` is what was asked for inside the source (a branch, a wheel's member); `revision` is what
    that was: a commit, the wheel's sha256, a folder's digest. `digest` is the sha256 over the
    sorted list of (sha256, size, path).
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    format: Literal[1]
    name: str
    kind: Literal["hub", "wheel", "folder"]
    source: str
    asked: str
    revision: Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
    path: Path
    files: tuple[FileRecord, ...]
    sealed_at: float
    digest: Sha256

    @property
    def total_bytes(self) -> int:
        return sum(record.size for record in self.files)


_ADAPTER = TypeAdapter(Manifest)


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
    write_atomically(_file(home, manifest), _ADAPTER.dump_json(stored, indent=1))


def unseal(home: Path, manifest: Manifest) -> None:
    """Remove the manifest: from here on the weights do not exist."""
    _file(home, manifest).unlink(missing_ok=True)


def manifests(home: Path) -> tuple[Manifest, ...]:
    """All seals, by name and age. A file that is none (a newer format, damaged) seals nothing."""
    found = (_read(home, file) for file in sorted(folder(home).glob("*.json")))
    return tuple(sorted((m for m in found if m), key=lambda m: (m.name, m.sealed_at)))


def folder(home: Path) -> Path:
    """Where the manifests lie."""
    return home / "manifests"


def new_manifest(
    name: str, kind: Literal["hub", "wheel", "folder"], source: str, asked: str, fetched: Fetched
) -> Manifest:
    """The seal for what was fetched just now."""
    files = tuple(sorted(fetched.files, key=lambda record: record.path))
    return Manifest(
        1, name, kind, source, asked, fetched.revision, fetched.path, files, time.time(),
        digest_of(files),
    )  # fmt: skip


def is_intact(manifest: Manifest) -> bool:
    """Whether every file is there as it was when it was hashed, by size and time."""
    return all(_is_unchanged(manifest.path, record) for record in manifest.files)


def is_complete(manifest: Manifest) -> bool:
    """Whether every file is there with its size."""
    return all(_stat(manifest.path / record.path)[0] == record.size for record in manifest.files)


def rehashed(manifest: Manifest, advance: Callable[[int], None]) -> Manifest | None:
    """The manifest with new times if the files have the same content still; else None."""
    if not is_complete(manifest):
        return None
    records = []
    for record in manifest.files:
        path = manifest.path / record.path
        if not _is_unchanged(manifest.path, record) and sha256_of(path, advance) != record.sha256:
            return None
        records.append(replace(record, mtime_ns=_stat(path)[1]))
    return replace(manifest, files=tuple(records))


def record_of(root: Path, path: str, sha256: str) -> FileRecord:
    """The record of a file that was just hashed."""
    size, mtime_ns = _stat(root / path)
    return FileRecord(path, size, sha256, mtime_ns)


def _is_unchanged(root: Path, record: FileRecord) -> bool:
    return _stat(root / record.path) == (record.size, record.mtime_ns)


def _stat(path: Path) -> tuple[int, int]:
    """Size and time; (-1, -1) if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _file(home: Path, manifest: Manifest) -> Path:
    return folder(home) / f"{slug(manifest.name)}--{manifest.revision[:12]}.json"


def _read(home: Path, file: Path) -> Manifest | None:
    try:
        found = _ADAPTER.validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        _log.warning("a manifest cannot be read; its weights count as not pulled: %s",
                     fields(file=file, reason=reason))  # fmt: skip
        return None
    whole = digest_of(found.files) == found.digest
    if not whole or not all(is_safe_path(record.path) for record in found.files):
        _log.warning(
            "a manifest is damaged; its weights count as not pulled: %s", fields(file=file)
        )
        return None
    return replace(found, path=home / found.path)
