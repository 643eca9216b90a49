"""Weights in a local folder, used where they lie."""

from collections.abc import Iterator
from pathlib import Path

from serve.errors import RepoNotFound, SourceUnreachable
from serve.sources import DirSource
from serve.store import approval, content
from serve.store.checking import hashed
from serve.store.manifest import Fetched, FileRecord, Manifest, digest_of, is_unchanged, record_of
from serve.store.paths import check_inside, link_home, real_path
from serve.store.progress import Progress


def fetch(
    source: DirSource, known: Manifest | None, remote_code: str | None, progress: Progress
) -> Fetched:
    """Check and hash the folder's model files; what `known` has hashed already is believed if the
    cheap check finds it unchanged. Raises RepoNotFound, UnsafeWeights, SourceUnreachable."""
    root = real_path(source.path)
    if not root.is_dir():
        raise RepoNotFound(str(source.path))
    try:
        paths = list(_paths(root))
        small = content.small_files(paths)
        approval.check_settings(root, remote_code)
        weights = content.weight_files(paths, content.read_index(root))
        home = link_home(root)
        for path in (*small, *weights):
            check_inside(root, path, home)
        content.check_weights(root, weights)
        records = tuple(_records(root, small + weights, known, progress))
    except OSError as error:
        raise SourceUnreachable(str(source.path), error.strerror or str(error)) from error
    revision = digest_of(records)
    approval.is_approved(remote_code, revision)  # a folder has no commit: nobody can approve it
    return Fetched(root, revision, records)


def _paths(root: Path) -> Iterator[str]:
    """Files of the folder and of those right below it; no model has any deeper ones."""
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from (f"{entry.name}/{one.name}" for one in entry.iterdir() if one.is_file())
        elif entry.is_file():
            yield entry.name


def _records(
    root: Path, paths: list[str], known: Manifest | None, progress: Progress
) -> Iterator[FileRecord]:
    old = {record.path: record for record in known.files} if known else {}
    listed = [record_of(root, path, "") for path in paths]
    progress.start(str(root), sum(one.size for one in listed), len(listed))
    try:
        same = {path: old[path] for path in paths if path in old and is_unchanged(root, old[path])}
        for record in same.values():
            progress.advance(record.size)
            progress.file_done()
        fresh = hashed(root, [one for one in listed if one.path not in same], progress)
        yield from (same.get(path) or fresh[path] for path in paths)
    finally:
        progress.finish()
