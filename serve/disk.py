"""Files that are whole or not there: room, locks, atomic writes, hashes, refusals of the OS."""

import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from serve.errors import DiskFull, NotWritable

_PIECE_BYTES = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn what the OS says while we write below `path` into DiskFull or NotWritable."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(str(path), needed_bytes, free_bytes(path)) from error
        raise NotWritable(str(error.filename or path), error.strerror or str(error)) from error


def free_bytes(path: Path) -> int:
    """Free room where `path` lies or will lie."""
    existing = next(place for place in (path, *path.parents) if place.is_dir())
    return shutil.disk_usage(existing).free


def require_room(path: Path, needed_bytes: int) -> None:
    """DiskFull unless `needed_bytes` fit where `path` lies or will lie."""
    if needed_bytes > (free := free_bytes(path)):
        raise DiskFull(str(path), needed_bytes, free)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file; `waiting` is called once if somebody else has it. The dead hold none."""
    with _lock_file(path) as fd:
        if not _try_lock(fd):
            waiting()
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield


@contextmanager
def shared(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file together with others who share it; `waiting` as for `locked`."""
    with _lock_file(path) as fd:
        if not _try_lock(fd, fcntl.LOCK_SH):
            waiting()
            fcntl.flock(fd, fcntl.LOCK_SH)
        yield


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock file now; no file is made to find that out."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # somebody else's; who knows
    try:
        return not _try_lock(fd)
    finally:
        os.close(fd)


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file if nobody has it; yields whether it is held."""
    with _lock_file(path) as fd:
        yield _try_lock(fd)


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            # What is there can be locked on a disk that is read-only by now.
            if error.errno not in (errno.EROFS, errno.EACCES) or not path.exists():
                raise
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _try_lock(fd: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_atomically(path: Path, content: bytes, workshop: Path | None = None) -> None:
    """Write the file so that it has its old or its new content, whatever happens when.

    `workshop`: where the unfinished file lies, on the same file system; None: beside the file.
    """
    name = f".{path.name}.{os.getpid()}-{threading.get_ident()}.part"
    part = (workshop or path.parent) / name
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file or folder onto the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sha256_of(path: Path, advance: Callable[[int], None]) -> str:
    """The file's sha256 in hex; `advance` hears of every piece read. Holds 1 MiB, and leaves the
    interpreter to other threads while it reads and hashes."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while n_bytes := file.readinto(piece):
            digest.update(piece[:n_bytes])
            advance(n_bytes)
    return digest.hexdigest()


def remove_tree(path: Path) -> None:
    """Remove a folder of ours, if it is there; of a link or file in its place, that."""
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
