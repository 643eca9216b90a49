"""Files that get their names when they are whole, all of them or none."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serve.disk import disk_errors, require_room, sync
from serve.errors import NotWritable, SettingsError


def draft(target: Path) -> Path:
    """Where a file grows: beside its name, hidden."""
    return target.with_name(f".{target.name}.part")


@contextmanager
def drafting(stem: Path, targets: Sequence[Path], needed_bytes: int) -> Iterator[None]:
    """Write the drafts of all targets inside; then they get their names. After an error they go.

    `stem` names the whole: what a killed run with the same stem left is swept away. SettingsError
    if a target is there already, NotWritable, DiskFull (before anything is written, too).
    """
    for target in targets:
        if target.exists():
            problem = f"is there already: {target}; remove it or choose another name"
            raise SettingsError("argument FILE", "", problem)
    with disk_errors(stem.parent, needed_bytes), _locked(stem):
        _sweep(stem)
        require_room(stem.parent, needed_bytes)
        try:
            yield
            for target in targets:
                sync(draft(target))
            for target in targets:
                draft(target).rename(target)
            sync(stem.parent)
        finally:
            _sweep(stem)


@contextmanager
def _locked(stem: Path) -> Iterator[None]:
    path = stem.with_name(f".{stem.name}.lock")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = path.exists() and os.path.samestat(path.stat(), os.fstat(fd))
        except BlockingIOError:
            is_ours = False
        if not is_ours:
            raise NotWritable(str(stem), "somebody else is writing it")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _sweep(stem: Path) -> None:
    for path in stem.parent.iterdir():
        name = path.name
        is_ours = name == f".{stem.name}.part" or (
            name.startswith(f".{stem.name}.")
            and name.endswith(".part")
            and name[len(stem.name) + 2 : -5].isdigit()
        )
        if is_ours:
            path.unlink(missing_ok=True)
