"""What is given: a table of repositories, revisions and files, made from the store's seals."""

import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from serve.errors import WeightsDamaged
from serve.log import fields
from serve.mirror.oid import git_blob_id, is_big
from serve.store import FileRecord, Manifest

_log = logging.getLogger(__name__)
_DEFAULT = "main"
_OWN = "inhouse"
_REPO_NAME = re.compile(r"[A-Za-z0-9](?!.*(--|\.\.))[\w.-]{0,94}(?<![.-])(?<!\.git)", re.ASCII)
# A seal that was written in the tick of the clock in which we read would not be seen as newer.
_TICK_S = 0.1


class Seals(Protocol):
    """What we need of the store: all seals, and a number that changes with any of them."""

    def manifests(self) -> tuple[Manifest, ...]: ...

    def stamp(self) -> int: ...


@dataclass(frozen=True, slots=True)
class File:
    """One file that is given: where it lies, and what it was when it was verified."""

    repo: str
    place: Path
    record: FileRecord

    @property
    def path(self) -> str:
        return self.record.path

    @property
    def size(self) -> int:
        return self.record.size


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit of a repository with all files of it that we hold."""

    repo: str
    commit: str
    license: str
    sealed_at: float
    files: Mapping[str, File]


@dataclass(frozen=True, slots=True)
class Repo:
    """`names`: what revisions are called, with the commits themselves; `branches` without them."""

    name: str
    branches: Mapping[str, str]
    revisions: Mapping[str, Revision]

    def find(self, revision: str | None) -> Revision | None:
        """The revision of this name or commit; None: the default branch."""
        wanted = _DEFAULT if revision is None else revision
        return self.revisions.get(self.branches.get(wanted, wanted))


@dataclass(slots=True)
class _Read:
    stamp: int = -1
    at: float = 0.0
    repos: Mapping[str, Repo] = field(default_factory=dict)


class Stock:
    """The table, always as the store is now. `patterns`: repositories that are given; () for all.

    May be used from several threads. A seal that comes, goes or falls into quarantine is seen by
    the next look; files are looked at when they are asked for.
    """

    def __init__(self, seals: Seals, patterns: tuple[str, ...] = ()) -> None:
        self._seals, self._patterns = seals, tuple(one.casefold() for one in patterns)
        self._lock = threading.Lock()
        self._read = _Read()
        self._oids: dict[str, str] = {}

    def repos(self) -> Mapping[str, Repo]:
        """Everything that is given now, by name."""
        with self._lock:
            stamp = self._seals.stamp()
            if stamp != self._read.stamp or self._read.at - stamp / 1e9 < _TICK_S:
                # The time is taken before: what is sealed while we read counts as newer.
                at = time.time()
                found = tuple(one for one in self._seals.manifests() if self._is_given(one))
                self._read = _Read(stamp, at, table(found))
            return self._read.repos

    def oid(self, file: File) -> str:
        """The content's name in the Hub's protocol: what the source called it, else git's id of
        small files and the sha256 of others. WeightsDamaged."""
        record = file.record
        if record.oid is not None or is_big(record.path, record.size):
            return record.oid or record.sha256
        found = self._oids.get(record.sha256)
        if found is None:
            found = self._oids[record.sha256] = git_blob_id(_content(file))
        return found

    def is_intact(self, revision: Revision) -> bool:
        """Whether every file is as it was when it was verified; says which is not."""
        try:
            for file in revision.files.values():
                _check(file, file.place.stat())
        except OSError:
            _tell(file, "it is gone")
        except WeightsDamaged as error:
            _tell(file, error.actual)
        else:
            return True
        return False

    def _is_given(self, manifest: Manifest) -> bool:
        if manifest.damage is not None:
            return False
        name = repo_name(manifest).casefold()
        return not self._patterns or any(fnmatchcase(name, one) for one in self._patterns)


def opened(file: File) -> int:
    """The open file, which is what was verified: a descriptor. WeightsDamaged if it is not."""
    # Without O_NONBLOCK a pipe in the file's place would hold us until somebody writes to it.
    try:
        fd = os.open(file.place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        _tell(file, "it cannot be opened")
        raise WeightsDamaged(file.repo, file.path, file.record.sha256, "no file") from error
    try:
        _check(file, os.fstat(fd))
    except WeightsDamaged as error:
        os.close(fd)
        _tell(file, error.actual)
        raise
    return fd


def is_unchanged(file: File, fd: int) -> bool:
    """Whether an open file still has what it had when it was opened; its name may be gone."""
    found = os.fstat(fd)
    is_same = (found.st_size, found.st_mtime_ns) == (file.record.size, file.record.mtime_ns)
    if not is_same:
        _tell(file, "changed while it was sent")
    return is_same


def repo_name(manifest: Manifest) -> str:
    """The repository that a seal is given as: the Hub's own name, else `inhouse/<model>`."""
    if manifest.kind == "hf":
        return manifest.source
    name = manifest.name
    if not _REPO_NAME.fullmatch(name):
        plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:80]
        name = f"{plain or 'model'}-{sha256(manifest.name.encode()).hexdigest()[:6]}"
    return f"{_OWN}/{name}"


def commit_of(manifest: Manifest) -> str:
    """The commit that a seal is given as; where there was none, the beginning of the digest."""
    is_commit = manifest.kind == "hf" and len(manifest.revision) == 40
    return manifest.revision if is_commit else manifest.digest[:40]


def table(manifests: tuple[Manifest, ...]) -> Mapping[str, Repo]:
    """The repositories that these seals make. Several seals of one commit add up."""
    grouped: dict[str, list[Manifest]] = {}
    for manifest in sorted(manifests, key=lambda one: one.sealed_at):
        grouped.setdefault(repo_name(manifest), []).append(manifest)
    repos = {name: _repo(name, seals) for name, seals in sorted(grouped.items())}
    return MappingProxyType(repos)


def _repo(name: str, seals: list[Manifest]) -> Repo:
    """`seals`: the oldest first, so that the newest decides what a branch is."""
    revisions: dict[str, Revision] = {}
    branches = {_DEFAULT: commit_of(seals[-1])}  # every repository has one; asked for or not
    for seal in seals:
        commit = commit_of(seal)
        known = revisions[commit].files if commit in revisions else {}
        files = {**known, **{file.path: file for file in _files(name, seal)}}
        revisions[commit] = Revision(name, commit, seal.license, seal.sealed_at, files)
    branches |= {
        seal.asked: commit_of(seal)
        for seal in seals
        if seal.kind == "hf" and seal.asked and seal.asked not in revisions
    }
    return Repo(name, branches, revisions)


def _files(repo: str, seal: Manifest) -> Iterator[File]:
    return (File(repo, seal.path / record.path, record) for record in seal.files)


def _content(file: File) -> bytes:
    fd = opened(file)
    with os.fdopen(fd, "rb") as source:
        content = source.read()
    found = sha256(content).hexdigest()
    if found != file.record.sha256:
        _tell(file, found)
        raise WeightsDamaged(file.repo, file.path, file.record.sha256, found)
    return content


def _check(file: File, found: os.stat_result) -> None:
    """The store's own cheap check. Where it leaves a doubt the store would hash the file again; we
    do not give it until that was done (`inhouse verify`)."""
    record = file.record
    is_same = (
        stat.S_ISREG(found.st_mode)
        and (found.st_size, found.st_mtime_ns) == (record.size, record.mtime_ns)
        and record.inode in (None, found.st_ino)
        and record.ctime_ns in (None, found.st_ctime_ns)
    )
    if not is_same:
        actual = f"{found.st_size} bytes, changed since"
        raise WeightsDamaged(file.repo, file.path, record.sha256, actual)


def _tell(file: File, actual: str) -> None:
    facts = fields(repo=file.repo, file=file.path, expected=file.record.sha256, found=actual)
    _log.error("a file may not be what was verified and is not given; inhouse verify: %s", facts)
