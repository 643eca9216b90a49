"""A repository's files, in the order in which they are fetched and judged."""

from collections.abc import Mapping
from pathlib import Path

from serve.errors import LockMismatch, UnsafeWeights
from serve.store import approval, content
from serve.store.hub_file import HubFile
from serve.store.manifest import FileRecord
from serve.store.transfer import Transfer

Files = Mapping[str, HubFile]


def obtain(
    transfer: Transfer, snapshot: Path, files: Files, remote_code: str | None, code: bool
) -> list[FileRecord]:
    """Have in `snapshot` those of the repository's files that a model needs; `code`: its Python
    too. Small files come first, so that what we refuse is refused before gigabytes were moved.

    UnsafeWeights, and what `transfer` raises.
    """
    settings = [files[path] for path in content.small_files(files, code)]
    for file in settings:
        content.check_size(file.path, file.size)
    likely = _likely_weights(files)
    transfer.show([*settings, *likely])
    records = transfer.obtain(settings)
    approval.check_settings(snapshot, remote_code)
    # What lies there and is not listed was not verified.
    index = content.read_index(snapshot) if content.INDEX in files else None
    names = content.weight_files(files, index)
    weights = [files[name] for name in names]
    if weights != likely:
        transfer.show([*settings, *weights], done=settings)
    records += transfer.obtain(weights)
    content.check_weights(snapshot, names)
    return records


def check_all_there(
    repo: str, expected: Mapping[str, str] | None, records: list[FileRecord]
) -> None:
    """LockMismatch if a file is locked (path → sha256) that the repository does not have."""
    locked = expected or {}
    for path in sorted(locked.keys() - {record.path for record in records}):
        raise LockMismatch(repo, path, locked[path], "no such file")


def _likely_weights(files: Files) -> list[HubFile]:
    """What will be fetched, as far as names tell before the index is here: for the display."""
    try:
        return [files[name] for name in content.weight_files(files, None)]
    except UnsafeWeights:
        return []
