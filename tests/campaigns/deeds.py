"""What a store does, each in a process of its own, to which something happens.

    python -m tests.campaigns.deeds DEED PLACE ENDPOINT KILL_AT FILL_AT

It says "now" when it is about to begin, and waits for a line. An event is a call of progress, or a
file or folder about to be opened for writing, made, renamed or removed in PLACE, counted from 1. At
event KILL_AT the process ends itself with SIGKILL; at FILL_AT the file system of PLACE is full
from then on. At its end it says how many events there were. Exit codes: 0 done, 3 the disk
refused, 4 another refusal of ours.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from serve.errors import DiskFull, InhouseError, NotWritable, WeightsDamaged
from serve.lock import Lock, write_lock
from serve.store import Progress, Store, hub  # noqa: F401  (the store would import it later)
from tests.campaigns.bundles import unpacked
from tests.campaigns.forgery import BUNDLE
from tests.campaigns.gates import locked
from tests.store.models import HUB_SPEC, Recorder, store_at

DISK_REFUSED, REFUSED = 3, 4
BALLAST = "ballast"
_AUDITED = {
    "open", "os.rename", "os.mkdir", "os.symlink", "os.link", "os.remove", "os.rmdir",
    "os.truncate", "os.utime",
}  # fmt: skip


def pull(store: Store, place: Path, progress: Progress) -> None:
    """Fetch, verify and seal."""
    store.pull(HUB_SPEC, progress)


def unpack(store: Store, place: Path, progress: Progress) -> None:
    """Import from the bundle that lies beside the place."""
    unpacked(store, place.parent / BUNDLE, progress)


def load(store: Store, place: Path, progress: Progress) -> None:
    """Have the folder that an engine gets."""
    store.ready(HUB_SPEC, progress)


def verify(store: Store, place: Path, progress: Progress) -> None:
    """Read everything; what is damaged goes into quarantine."""
    with suppress(WeightsDamaged):
        store.verify(HUB_SPEC.name, progress)


def remove(store: Store, place: Path, progress: Progress) -> None:
    """Forget the model, and remove its files."""
    store.remove(HUB_SPEC.name)


def clear(store: Store, place: Path, progress: Progress) -> None:
    """Remove what nobody needs, the model too."""
    store.clear(unused_s=0.0)


def lock(store: Store, place: Path, progress: Progress) -> None:
    """Write the lock file."""
    write_lock(place / "models.lock", Lock((locked(store.manifest(HUB_SPEC)),)))


DEEDS: dict[str, Callable[[Store, Path, Progress], None]] = {
    "pull": pull, "import": unpack, "load": load, "verify": verify, "quarantine": verify,
    "rm": remove, "gc": clear, "lock": lock,
}  # fmt: skip


class Fuse:
    """Counts events, and does what is to happen at one of them."""

    def __init__(self, place: Path, kill_at: int, fill_at: int) -> None:
        self._place, self._kill_at, self._fill_at = place, kill_at, fill_at
        self._lock, self.count = threading.RLock(), 0
        self._is_filling = False

    def progress(self, _: int) -> None:
        """Progress was made."""
        self._burn()

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The interpreter is about to do something."""
        if event in _AUDITED and str(arguments[0]).startswith(str(self._place)):
            is_reading = event == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR))
            if not is_reading:
                self._burn()

    def _burn(self) -> None:
        with self._lock:
            if self._is_filling:
                return
            self.count += 1
            if self.count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.count == self._fill_at:
                self._is_filling = True
                fill(self._place.parent)


def fill(disk: Path) -> None:
    """Leave no room on the file system of this folder."""
    fd = os.open(disk / BALLAST, os.O_WRONLY | os.O_CREAT, 0o666)
    for size in (2**20, 2**12, 1):
        try:
            while os.write(fd, bytes(size)) > 0:
                pass
        except OSError:
            continue
    os.close(fd)


def main(deed: str, place: str, endpoint: str, kill_at: str, fill_at: str) -> int:
    fuse = Fuse(Path(place), int(kill_at), int(fill_at))
    store = store_at(Path(place), endpoint)
    print("now", flush=True)
    sys.stdin.readline()
    sys.addaudithook(fuse.audit)
    try:
        DEEDS[deed](store, Path(place), Recorder(on_advance=fuse.progress))
    except (DiskFull, NotWritable):
        return DISK_REFUSED
    except InhouseError as error:
        print(f"{type(error).__name__}: {error!r}")
        return REFUSED
    with suppress(OSError):  # no write at all may succeed
        os.write(1, f"{fuse.count}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
