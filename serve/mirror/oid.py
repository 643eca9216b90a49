"""The names that the Hub gives to content: git's ids, and pointers to big files."""

import hashlib
from collections.abc import Iterable

_BIG_BYTES = 10 * 2**20  # the Hub's own border between files in git and files beside it


def git_blob_id(content: bytes) -> str:
    """git's id of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """What git itself holds in the place of a big file (Git LFS, version 1)."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    ).encode()


def is_big(path: str, size: int) -> bool:
    """Whether a file whose source said nothing is named by its sha256, not by git's id."""
    return size >= _BIG_BYTES or path.endswith(".safetensors")


def folder_id(entries: Iterable[tuple[str, str]]) -> str:
    """An id for a folder: changes with the name or content of anything below it."""
    lines = "".join(f"{oid} {path}\n" for path, oid in sorted(entries))
    return hashlib.sha1(lines.encode(), usedforsecurity=False).hexdigest()
