"""Names that others chose, judged before they are joined to a folder of ours."""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from serve.errors import UnsafeWeights

_SAFE_PATH = re.compile(r"[A-Za-z0-9_][\w.+ -]*(/[A-Za-z0-9_][\w.+ -]*)*", re.ASCII)
# File systems take 255 bytes for a name; what is unfinished has a longer one than the finished.
_LONGEST_NAME = 200
_LONGEST_PATH = 300


def is_safe_path(path: str) -> bool:
    """Whether a file name that others chose stays inside the folder it is joined to, on every file
    system and in every log: plain ASCII, no hidden part, no `..`, not too long."""
    return (
        len(path) <= _LONGEST_PATH
        and _SAFE_PATH.fullmatch(path) is not None
        and all(len(name) <= _LONGEST_NAME for name in path.split("/"))
    )


def check_names(taken: Iterable[str], listed: Iterable[str]) -> None:
    """UnsafeWeights if the list of a model's files is made to deceive: a name that leads out of the
    folder, or one that some file systems and readers take for one of `taken`."""
    wanted = {_folded(path): path for path in taken}
    for path in listed:
        if _leads_out(path):
            raise UnsafeWeights(shown(path), "a name that leads out of the folder")
        twin = wanted.get(_folded(path), path)
        if twin != path:
            raise UnsafeWeights(shown(path), f"differs from {twin} only by case or encoding")


def check_inside(root: Path, path: str, home: Path) -> Path:
    """Where the file `path` of the folder `root` really lies. UnsafeWeights if that is not below
    `home`, the folder that its links may stay in."""
    real = real_path(root / path)
    if not real.is_relative_to(real_path(home)):
        raise UnsafeWeights(path, f"is a link out of its folder, to {real}")
    return real


def real_path(path: Path) -> Path:
    """The path without links; what is a loop of links stays as it is (`resolve` would raise)."""
    return Path(os.path.realpath(path))


def link_home(root: Path) -> Path:
    """The folder that links below `root` may stay in: a repository's own folder in the Hub client's
    cache, whose snapshots are made of links to its blobs; else `root` itself."""
    is_snapshot = root.parent.name == "snapshots" and (root.parents[1] / "blobs").is_dir()
    return root.parents[1] if is_snapshot else root


def shown(path: str) -> str:
    """A name as it may be printed: nothing in it acts on a terminal, and its length is bounded."""
    text = path if path.isprintable() else ascii(path)[1:-1]
    return text if len(text) <= _LONGEST_PATH else f"{text[:80]}… ({len(text)} characters)"


def _leads_out(path: str) -> bool:
    parts = re.split(r"[/\\]", path)
    return ".." in parts or parts[0] in ("", "~") or any(ord(char) < 32 for char in path)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFKC", path).casefold()
