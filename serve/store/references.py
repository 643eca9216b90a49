"""Which snapshots of a repository in the Hub's cache name which blobs, and what goes with one."""

import os
from collections.abc import Iterable
from pathlib import Path

from serve.disk import sync

# What we put beside other files for a moment, or for good: nobody else's.
_OURS = (".inhouse", ".inhouse-damaged")


class References:
    """One repository's folder (`models--org--name`), read once. Other tools use it as well."""

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        self._named: dict[Path, dict[str, Path]] = {}
        self._going: set[Path] = set()
        for snapshot in _folders(storage / "snapshots"):
            self._named[snapshot] = dict(_pointers(snapshot))

    def is_only(self, snapshot: Path, paths: set[str], refs: set[str]) -> bool:
        """Whether nothing lies in the snapshot but `paths`, and no branch or tag but `refs` is
        this commit: else another program has been here and may come back."""
        others = {path for path in self._named.get(snapshot, {}) if not path.endswith(_OURS)}
        return others <= paths and self._refs_to(snapshot.name) <= refs

    def without(self, snapshot: Path, blobs: Iterable[str]) -> tuple[Path, ...]:
        """The files that nobody names once the snapshot is gone, out of those that it names and
        `blobs`, names of blobs that it once had. The snapshot counts as gone from here on."""
        once = {self._storage / "blobs" / name for name in blobs}
        mine = {*self._named.pop(snapshot, {}).values(), *once}
        going = {path for path in mine - self._all_named() - self._going if path.is_file()}
        self._going |= going
        return tuple(sorted(going))

    def unnamed(self) -> tuple[Path, ...]:
        """The whole blobs that no snapshot names, nor one that counts as gone has named."""
        blobs = {path for path in _files(self._storage / "blobs") if "." not in path.name}
        return tuple(sorted(blobs - self._all_named() - self._going))

    def remove(self, snapshot: Path, files: Iterable[Path]) -> None:
        """Remove the snapshot, its refs and `files`. It may have been begun before."""
        for name in self._refs_to(snapshot.name):
            (self._storage / "refs" / name).unlink(missing_ok=True)
        for place, folders, names in os.walk(snapshot, topdown=False):
            for name in (*names, *_links(place, folders)):
                (Path(place) / name).unlink(missing_ok=True)
            Path(place).rmdir()
        if snapshot.parent.is_dir():
            sync(snapshot.parent)
        for path in files:
            path.unlink(missing_ok=True)

    def _all_named(self) -> set[Path]:
        return {path for pointers in self._named.values() for path in pointers.values()}

    def _refs_to(self, commit: str) -> set[str]:
        refs = self._storage / "refs"
        return {
            path.relative_to(refs).as_posix()
            for path in refs.rglob("*")
            if path.is_file() and path.read_text("ascii", "replace").strip() == commit
        }


def size_of(path: Path) -> int:
    """The bytes that are free once the file is gone: its own, but none if it has other names."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0  # it went meanwhile
    return min(found.st_size, found.st_blocks * 512) if found.st_nlink == 1 else 0


def changed_at(path: Path) -> float:
    """When the file or folder was changed last, in Unix seconds; 0.0 if it went meanwhile."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def tree_size(path: Path) -> int:
    """The bytes that are free once the folder is gone."""
    return sum(size_of(Path(place) / name) for place, _, names in os.walk(path) for name in names)


def _pointers(snapshot: Path) -> Iterable[tuple[str, Path]]:
    """The snapshot's files: path → the blob that it leads to, or itself if it is no link."""
    for place, folders, names in os.walk(snapshot):
        for name in (*names, *_links(place, folders)):
            pointer = Path(place) / name
            target = pointer
            if pointer.is_symlink():
                target = Path(os.path.normpath(pointer.parent / pointer.readlink()))
            yield pointer.relative_to(snapshot).as_posix(), target


def _links(place: str, folders: Iterable[str]) -> list[str]:
    """What only looks like a folder: a link to one, which is not ours to enter."""
    return [name for name in folders if (Path(place) / name).is_symlink()]


def _folders(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_dir()] if place.is_dir() else []


def _files(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_file()] if place.is_dir() else []
