"""Who owns `control.sock`: a lock on a file beside it, held as long as the supervisor lives.

The kernel frees the lock with its holder, however that dies, so a socket without a lock is stale
and may be removed, and two starts cannot both find it so.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serve.errors import AlreadyRunning, NotWritable


def lock_file(socket: Path) -> Path:
    """The file whose lock stands for `socket`."""
    return socket.with_suffix(".lock")


@contextmanager
def owned(socket: Path) -> Iterator[None]:
    """Own `socket`'s place. AlreadyRunning if another process does, NotWritable if nobody can."""
    try:
        # A folder that was there keeps its mode: it may be one that others use, such as /tmp.
        socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(lock_file(socket), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotWritable(str(socket.parent), error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(str(socket)) from None
        socket.unlink(missing_ok=True)  # left by a supervisor that was killed
        yield
    finally:
        os.close(descriptor)


def wait_until_free(socket: Path) -> None:
    """Block until nobody owns `socket`; at once if nobody does."""
    try:
        descriptor = os.open(lock_file(socket), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
