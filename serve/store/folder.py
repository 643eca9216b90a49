"""Weights in a local folder, used where they lie."""

from collections.abc import Iterator
from pathlib import Path

from serve.errors import RepoNotFound, SourceUnreachable
from serve.sources import DirSource
from serve.store import content
from serve.store.disk import sha256_of
from serve.store.manifest import Fetched, FileRecord, Manifest, digest_of, record_of
from serve.store.progress import Progress


def fetch(source: DirSource, known: Manifest | None, progress: Progress) -> Fetched:
    """Check and hash the folder's model files; what `known` has hashed already is believed if its
    size and time are the same. Raises RepoNotFound, UnsafeWeights, SourceUnreachable."""
    root = source.path.resolve()
    if not root.is_dir():
        raise RepoNotFound(str(source.path))
    try:
        content.check_settings(root)
        paths = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        weights = content.weight_files(paths, content.read_index(root))
        content.check_weights(root, weights)
        records = tuple(_records(root, content.small_files(paths) + weights, known, progress))
    except OSError as error:
        raise SourceUnreachable(str(source.path), error.strerror or str(error)) from error
    return Fetched(root, digest_of(records), records)


def _records(
    root: Path, paths: list[str], known: Manifest | None, progress: Progress
) -> Iterator[FileRecord]:
    old = {record.path: record for record in known.files} if known else {}
    progress.start(str(root), sum((root / path).stat().st_size for path in paths))
    try:
        for path in paths:
            before = record_of(root, path, "")
            record = old.get(path)
            if record and (record.size, record.mtime_ns) == (before.size, before.mtime_ns):
                progress.advance(record.size)
                yield record
            else:
                yield record_of(root, path, sha256_of(root / path, progress.advance))
    finally:
        progress.finish()
