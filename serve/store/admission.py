"""Weights that arrive from elsewhere (a bundle): checked as if they were fetched, then given the
place where their own source would have put them."""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from serve.catalog import ModelSpec
from serve.disk import disk_errors, locked, remove_tree, require_room, sync
from serve.errors import HashMismatch, UnsafeWeights
from serve.store.approval import check_settings, is_approved
from serve.store.content import (
    check_size,
    check_weights,
    is_loadable,
    read_index,
    weight_files,
)
from serve.store.hub_cache import HubCache
from serve.store.hub_file import Hashes, HubFile
from serve.store.manifest import (
    Fetched,
    FileRecord,
    Manifest,
    changed,
    digest_of,
    record_of,
    slug,
)
from serve.store.paths import check_names, shown
from serve.store.progress import Progress
from serve.store.staging import Staging
from serve.store.wheel import work_folder

_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)


@dataclass(frozen=True, slots=True)
class Homes:
    """Where weights lie: the shelf, and the Hub client's folder."""

    shelf: Path
    hub: Path


def check(spec: ModelSpec, told: Manifest) -> None:
    """UnsafeWeights unless the files are those that we would have fetched: no names that deceive,
    nothing that we do not load."""
    paths = [record.path for record in told.files]
    code = is_approved(spec.remote_code, told.revision)
    for record in told.files:
        if not is_loadable(record.path, code):
            raise UnsafeWeights(shown(record.path), "is nothing that we load")
        check_size(record.path, record.size)
    check_names(paths, paths)
    if digest_of(told.files) != told.digest:
        raise HashMismatch(f"the list of files of {told.name}", told.digest, digest_of(told.files))


def admit(
    spec: ModelSpec, told: Manifest, staging: Staging, homes: Homes, progress: Progress
) -> Fetched:
    """Verify what `told` says is in `staging`, and have it where it belongs, without a seal still.

    The caller alone uses the model's name. What is wrong is discarded from the staging, and only
    that. Raises HashMismatch, UnsafeWeights, DiskFull, NotWritable.
    """
    stem = slug(told.name)
    work = work_folder(homes.shelf, stem)
    with disk_errors(homes.shelf):
        remove_tree(work)
        root = work / "weights"
        progress.start(f"checking {told.name}", told.total_bytes, len(told.files))
        try:
            for record in told.files:
                is_shared = staging.is_held(record.sha256)
                _lay(staging.path(record.sha256), root / record.path, is_shared)
            _verify(root, told, staging, progress)
            _check_content(root, spec, told)
            if told.kind == "hf":
                return _into_cache(root, told, homes.hub, progress)
            return _onto_shelf(root, told, homes.shelf / f"{stem}--{told.digest[:12]}")
        finally:
            progress.finish()
            remove_tree(work)


def _lay(source: Path, target: Path, is_shared: bool = False) -> None:
    """The same file under another name; a copy where that cannot be, or where others need the file
    too: what happens to their links would look like a change here (ctime)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not is_shared:
            return os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    require_room(target, source.stat().st_size)
    shutil.copyfile(source, target)


def _check_content(root: Path, spec: ModelSpec, told: Manifest) -> None:
    """What pull checks: settings, the index, and that every header is true."""
    check_settings(root, spec.remote_code)
    paths = [record.path for record in told.files]
    weights = weight_files(paths, read_index(root))
    check_weights(root, weights)
    for path in paths:
        if path.endswith(".safetensors") and path not in weights:
            raise UnsafeWeights(path, "is nothing that we load")


def _verify(root: Path, told: Manifest, staging: Staging, progress: Progress) -> None:
    for record in told.files:
        hashes = Hashes(_hub_file(record))
        with (root / record.path).open("rb", buffering=0) as file:
            for n_bytes in hashes.reading(file):
                progress.advance(n_bytes)
        if hashes.sha256 != record.sha256:
            staging.discard(record.sha256)
            raise HashMismatch(record.path, record.sha256, hashes.sha256)
        if not hashes.is_right:
            raise hashes.mismatch((root / record.path).stat().st_size)
        progress.file_done()


def _onto_shelf(root: Path, told: Manifest, final: Path) -> Fetched:
    for path in [*root.rglob("*"), root]:
        sync(path)
    remove_tree(final)  # of a run that ended before its seal
    root.rename(final)
    sync(final.parent)
    return Fetched(final, told.revision, tuple(_records(final, told)))


def _into_cache(root: Path, told: Manifest, hub_home: Path, progress: Progress) -> Fetched:
    cache = HubCache(hub_home, told.source, told.revision)
    files = {record.path: _hub_file(record) for record in told.files}
    for file in files.values():
        _refuse_another(cache, file)
    with disk_errors(cache.storage):
        for path, file in files.items():
            with locked(cache.lock(file), lambda: progress.note("somebody else downloads it")):
                if not cache.holds(file) or cache.find(file, lambda _: None) is None:
                    _accept(cache, file, root / path)
        if told.asked:
            cache.remember(told.asked, told.revision)
    return Fetched(cache.snapshot, told.revision, tuple(_records(cache.snapshot, told)))


def _accept(cache: HubCache, file: HubFile, source: Path) -> None:
    partial = cache.partial(file)
    partial.unlink(missing_ok=True)
    try:
        _lay(source, partial)
    except OSError:
        partial.unlink(missing_ok=True)  # leave the disk no fuller than it was
        raise
    cache.accept(file)


def _refuse_another(cache: HubCache, file: HubFile) -> None:
    """What the Hub itself told of this commit is worth more than what a bundle tells."""
    pointer = cache.pointer(file)
    if pointer.is_symlink() and cache.blob(file).name != (here := pointer.readlink().name):
        raise HashMismatch(f"{file.path} of {cache.repo}", here, file.promised)


def _records(root: Path, told: Manifest) -> Iterator[FileRecord]:
    for record in told.files:
        yield record_of(root, record.path, record.sha256, record.oid)


def _hub_file(record: FileRecord) -> HubFile:
    return HubFile(record.path, record.size, record.oid or record.sha256)


def is_same(held: Manifest, told: Manifest) -> bool:
    """Whether these very weights are held, unchanged."""
    mine = (held.name, held.kind, held.revision, held.digest)
    theirs = (told.name, told.kind, told.revision, told.digest)
    return mine == theirs and held.damage is None and not changed(held)


def sealed(spec: ModelSpec, told: Manifest, fetched: Fetched) -> Manifest:
    """The seal of what was admitted just now. What a local catalog cannot find by its source is the
    operator's choice, and answers by its name.

    Without ctimes: the staging still has a link to each file, and when that goes they change.
    Whoever is killed in between leaves a seal that holds.
    """
    now = time.time()
    by_path = sorted(fetched.files, key=lambda record: record.path)
    files = tuple(replace(record, ctime_ns=None) for record in by_path)
    return replace(
        told, path=fetched.path, files=files, sealed_at=now, verified_at=now,
        is_chosen=told.kind != "hf" or spec.is_chosen, license=spec.license.name, damage=None,
    )  # fmt: skip


def settled(made: Manifest, staging: Staging) -> Manifest:
    """The seal with ctimes, once the staging has let go of the files."""
    for record in made.files:
        staging.release(record.sha256)
    files = []
    for old in made.files:
        new = record_of(made.path, old.path, old.sha256, old.oid)
        files.append(new if replace(new, ctime_ns=None) == old else old)
    return replace(made, files=tuple(files))
