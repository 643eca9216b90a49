"""The values of a lock file: models, and the files that they consist of."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from serve.sources import Kind

FORMAT = 1  # of the file


@dataclass(frozen=True, slots=True)
class LockedFile:
    """One file: its path in the model's folder, its size in bytes and its sha256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LockedModel:
    """One model. `source` and `revision` are what a manifest has under these names; `entry` is the
    digest of the catalog entry (`ModelSpec.digest`); `digest` stands for all files."""

    name: str
    kind: Kind
    source: str
    revision: str
    license: str
    entry: str
    digest: str
    files: tuple[LockedFile, ...]


def digest_of(files: Iterable[LockedFile]) -> str:
    """The sha256 in hex that stands for exactly these files, as in a manifest."""
    lines = (f"{file.sha256} {file.size} {file.path}\n" for file in files)
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
