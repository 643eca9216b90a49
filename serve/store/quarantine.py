"""Damaged files are put where nobody loads them, and out of the way when they are fetched anew."""

from pathlib import Path

from serve.disk import disk_errors
from serve.store.manifest import FileRecord, Manifest
from serve.store.paths import real_path

# Other tools that use the cache see a file that is missing, and fetch it.
_SUFFIX = ".inhouse-damaged"


def put_aside(found: Manifest, path: str) -> None:
    """Take a damaged file out of the Hub client's cache, which other tools load from as well.

    A user's own folder is never touched; what lies on our shelf, only we load.
    """
    if found.kind != "hf":
        return
    pointer = found.path / path
    target, repo = real_path(pointer), real_path(found.path.parents[1])
    with disk_errors(pointer):
        if pointer.is_symlink() and not _is_meant(pointer, target, repo, found.files):
            pointer.unlink()  # the link is wrong, not where it leads
        elif target.is_file() and target.is_relative_to(repo):
            target.rename(target.with_name(target.name + _SUFFIX))


def clear(found: Manifest) -> None:
    """Remove what was put aside for this repository: it is about to be fetched anew."""
    if found.kind != "hf":
        return
    blobs = found.path.parents[1] / "blobs"
    with disk_errors(blobs):
        for place in (blobs, found.path):
            for file in place.glob(f"*{_SUFFIX}"):
                file.unlink(missing_ok=True)


def stray(found: Manifest) -> tuple[str, ...]:
    """Files whose link leads out of the repository's own folder of the cache. The Hub's client
    never makes one: nobody guards that place, whatever lies there now."""
    if found.kind != "hf":
        return ()
    repo = real_path(found.path.parents[1])
    paths = (one.path for one in found.files)
    return tuple(path for path in paths if not real_path(found.path / path).is_relative_to(repo))


def cut_links(found: Manifest) -> None:
    """Remove such links; what they should lead to is found, or fetched."""
    for path in stray(found):
        with disk_errors(found.path):
            (found.path / path).unlink(missing_ok=True)


def _is_meant(pointer: Path, target: Path, repo: Path, files: tuple[FileRecord, ...]) -> bool:
    """Whether the link leads to the blob that bears this file's hash as its name."""
    oid = next((one.oid for one in files if pointer.match(f"*/{one.path}")), None)
    return target.is_relative_to(repo) and oid in (None, target.name)
