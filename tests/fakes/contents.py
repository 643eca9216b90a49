"""What fake servers serve: a file as bytes or as a place, and the hashes that it is known by."""

import hashlib
from functools import lru_cache
from pathlib import Path

Content = bytes | Path


def size_of(content: Content) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def sha256(content: Content) -> str:
    return _hashed(content, _stamp(content), b"", "sha256")


def git_id(content: Content) -> str:
    """git's id of a file with this content."""
    return _hashed(content, _stamp(content), b"blob %d\0" % size_of(content), "sha1")


def _stamp(content: Content) -> int:
    """Another number when a file was written anew."""
    return content.stat().st_mtime_ns if isinstance(content, Path) else 0


@lru_cache(4096)
def _hashed(content: Content, stamp: int, prefix: bytes, kind: str) -> str:
    digest = hashlib.new(kind, prefix, usedforsecurity=False)
    if isinstance(content, bytes):
        digest.update(content)
    else:
        with content.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()
