"""One repository's folder in the Hub client's cache: blobs by hash, snapshots of links to them.

    models--Qwen--Qwen3-8B/blobs/<hash>
                           snapshots/<commit>/<file> -> ../../blobs/<hash>
                           refs/main: <commit>

A blob of ours grows as `<hash>.inhouse.incomplete` and gets its name when its content was verified.
The hash that names a blob is what its content must have, so a cache can be verified without a Hub.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from serve.disk import locked_if_free, sync, write_atomically
from serve.store.hub_file import HubFile, verified

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REF = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


class HubCache:
    """The folder of one repository, and the snapshot of one commit in it."""

    def __init__(self, home: Path, repo: str, commit: str) -> None:
        folder = "models--" + repo.replace("/", "--")
        self.repo = repo
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

    def holds(self, file: HubFile) -> bool:
        """Whether something lies here as this file; what it is, is for `find` to see."""
        return self.pointer(file).exists() or self.blob(file).exists()

    def missing_bytes(self, file: HubFile) -> int:
        """How much room the file will still take."""
        if self.holds(file):
            return 0
        partial = self.partial(file)
        return file.size - (partial.stat().st_size if partial.exists() else 0)

    def find(self, file: HubFile, advance: Callable[[int], None]) -> str | None:
        """The file's sha256 if it is here with the promised content, from whoever; else None."""
        if sha256 := verified(file, self.pointer(file), advance):
            return sha256
        if self._is_linked(file):
            return None  # it was read just now
        sha256 = verified(file, self.blob(file), advance)
        if sha256 is not None:
            self._link(file)
        return sha256

    def inherit(self, file: HubFile) -> bool:
        """Have a partial file if there is one: our own, or what a client left that is gone.

        Other clients download into `<hash>.incomplete` or `<hash>.<random>.incomplete` under a
        lock of their own. Files with holes were not written from front to back.
        """
        partial = self.partial(file)
        if partial.exists():
            return True
        with locked_if_free(self._locks / f"{file.promised}.lock") as is_free:
            if not is_free:
                return False
            left = [
                (found.st_size, path)
                for path in partial.parent.glob(f"{file.promised}*.incomplete")
                if 0 < (found := path.stat()).st_size <= min(file.size, found.st_blocks * 512)
            ]
            if left:
                max(left)[1].replace(partial)
            return bool(left)

    def accept(self, file: HubFile) -> None:
        """Make the partial file, which was verified, the blob."""
        partial, blob = self.partial(file), self.blob(file)
        sync(partial)
        partial.replace(blob)
        sync(blob.parent)
        self._link(file)

    def remember(self, revision: str, commit: str) -> None:
        """Note which commit a branch or tag was, as the client does."""
        if not _COMMIT.fullmatch(revision) and _REF.fullmatch(revision):
            ref = self.storage / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            # Whatever lies in refs/, even half a file of a dead process, is a ref to the client.
            write_atomically(ref, commit.encode(), workshop=self._locks)

    def listing(self) -> list[HubFile]:
        """The snapshot's files as far as their blobs' names say what they must be."""
        found = []
        for pointer in sorted(self.snapshot.rglob("*")):
            name = pointer.readlink().name if pointer.is_symlink() else ""
            if _HASH.fullmatch(name) and pointer.is_file():
                path = pointer.relative_to(self.snapshot).as_posix()
                found.append(HubFile(path, pointer.stat().st_size, name))
        return found

    def _link(self, file: HubFile) -> None:
        if self._is_linked(file):
            return
        pointer, blob = self.pointer(file), self.blob(file)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        fresh = pointer.with_name(f".{pointer.name}.inhouse")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(blob, pointer.parent))
        fresh.replace(pointer)

    def _is_linked(self, file: HubFile) -> bool:
        pointer, blob = self.pointer(file), self.blob(file)
        return pointer.exists() and blob.exists() and pointer.samefile(blob)


def commit_of(home: Path, repo: str, revision: str) -> str | None:
    """Which commit a branch or tag was when the cache last heard of it."""
    if _COMMIT.fullmatch(revision):
        return revision
    if not _REF.fullmatch(revision):
        return None
    ref = HubCache(home, repo, "").storage / "refs" / revision
    commit = ref.read_text("ascii", "replace").strip() if ref.is_file() else ""
    return commit if _COMMIT.fullmatch(commit) else None
