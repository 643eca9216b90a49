"""One repository's folder in the Hub client's cache: blobs by hash, snapshots of links to them.

    models--Qwen--Qwen3-8B/blobs/<hash>
                           snapshots/<commit>/<file> -> ../../blobs/<hash>
                           refs/main: <commit>

A blob of ours grows as `<hash>.inhouse.incomplete` and gets its name when its content was verified.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serve.errors import HashMismatch
from serve.store.disk import git_sha1_of, sha256_of, sync, write_atomically

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REF = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the Hub lists it.

    `promised` is the hash that its bytes must have: the sha256 of big files (LFS, Xet), git's
    sha1 of the others. It is checked hex and names the blob.
    """

    path: str
    size: int
    promised: str

    @property
    def has_sha256(self) -> bool:
        return len(self.promised) == 64


class HubCache:
    """The folder of one repository, and the snapshot of one commit in it."""

    def __init__(self, home: Path, repo: str, commit: str) -> None:
        folder = "models--" + repo.replace("/", "--")
        self.storage = home / "hub" / folder
        self.snapshot = self.storage / "snapshots" / commit
        self._locks = home / "hub" / ".locks" / folder

    def pointer(self, file: HubFile) -> Path:
        return self.snapshot / file.path

    def blob(self, file: HubFile) -> Path:
        return self.storage / "blobs" / file.promised

    def partial(self, file: HubFile) -> Path:
        return self.storage / "blobs" / f"{file.promised}.inhouse.incomplete"

    def lock(self, file: HubFile) -> Path:
        """Not the client's own lock, which it may remove; its downloads never meet ours."""
        return self._locks / f"{file.promised}.inhouse.lock"

    def missing_bytes(self, file: HubFile) -> int:
        """How much room the file will still take."""
        if self.pointer(file).exists() or self.blob(file).exists():
            return 0
        partial = self.partial(file)
        return file.size - (partial.stat().st_size if partial.exists() else 0)

    def find(self, file: HubFile, advance: Callable[[int], None]) -> str | None:
        """The file's sha256 if it is here with the promised content, from whoever; else None."""
        if sha256 := verified(file, self.pointer(file), advance):
            return sha256
        sha256 = verified(file, self.blob(file), advance)
        if sha256 is not None:
            self._point(file)
        return sha256

    def accept(self, file: HubFile) -> str:
        """Make the partial file the blob; its sha256. HashMismatch, and it is gone, if wrong."""
        partial, blob = self.partial(file), self.blob(file)
        sha256 = verified(file, partial, lambda _: None)
        if sha256 is None:
            mismatch = _mismatch(file, partial)
            partial.unlink()
            raise mismatch
        sync(partial)
        partial.replace(blob)
        sync(blob.parent)
        self._point(file)
        return sha256

    def remember(self, revision: str, commit: str) -> None:
        """Note which commit a branch or tag was, as the client does."""
        if not _COMMIT.fullmatch(revision) and _REF.fullmatch(revision):
            ref = self.storage / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            # Whatever lies in refs/, even half a file of a dead process, is a ref to the client.
            write_atomically(ref, commit.encode(), workshop=self._locks)

    def _point(self, file: HubFile) -> None:
        pointer, blob = self.pointer(file), self.blob(file)
        if pointer.exists() and pointer.samefile(blob):
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        fresh = pointer.with_name(f".{pointer.name}.inhouse")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(blob, pointer.parent))
        fresh.replace(pointer)


def verified(file: HubFile, path: Path, advance: Callable[[int], None]) -> str | None:
    """The sha256 of the file at `path` if it has the promised content; what was advanced is taken
    back if not."""
    if not path.is_file() or path.stat().st_size != file.size:
        return None
    sha256 = sha256_of(path, advance)
    if (sha256 if file.has_sha256 else git_sha1_of(path)) == file.promised:
        return sha256
    advance(-file.size)
    return None


def _mismatch(file: HubFile, path: Path) -> HashMismatch:
    size = path.stat().st_size
    if size != file.size:
        return HashMismatch(file.path, f"{file.size} bytes", f"{size} bytes")
    actual = sha256_of(path, lambda _: None) if file.has_sha256 else git_sha1_of(path)
    return HashMismatch(file.path, file.promised, actual)
