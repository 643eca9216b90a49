"""The campaign `disk_full`: no room at any place where something is written.

Two ways: a small tmpfs that is filled just before one event (`deeds.py`), after which the OS
itself refuses; and, where strace is installed, ENOSPC from the N-th of one system call on.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from serve.errors import InhouseError
from tests.campaigns.child import Fate, calls_of, started
from tests.campaigns.deeds import BALLAST, DEEDS, DISK_REFUSED
from tests.campaigns.oracle import Broken
from tests.campaigns.report import Report
from tests.campaigns.scenes import Scene, scene
from tests.campaigns.subject import subject

PROMISE = (
    "A disk without room at each write, folder, link and rename in turn. The work ends with an "
    "error that names the disk, or does without; an oracle that shares no code with the store "
    "finds the whole model or none of it, and when there is room again, the same work succeeds."
)
TENSOR_BYTES = 64 * 1024
DISK_BYTES = 24 * 2**20
# Calls by which a file system needs room; those that give some back never want any.
NEEDY = ("write", "pwrite64", "fsync", "fdatasync", "rename", "link", "linkat", "symlink", "mkdir")


class NoRights(Exception):
    """We may not mount a tmpfs."""


def run(
    count: int, seed: int, place: Path, told: Callable[[str], None] = lambda _: None,
    deeds: Iterable[str] = tuple(DEEDS),
) -> Report:  # fmt: skip
    """At most `count` places of each of these deeds, evenly spread over all there are."""
    files = subject(seed, TENSOR_BYTES)
    report = Report("disk_full", PROMISE, ("deed", "no room at", "ended with"))
    with small_disk(place / "disk") as disk, scene(files, disk) as on:
        for deed in deeds:
            for number, (way, fate) in enumerate(_spread(_fates(on, deed), count)):
                where = disk / f"{deed}-{number}"
                try:
                    ended = _trial(on, where, deed, fate)
                except (Broken, InhouseError) as broken:
                    report.failed(f"{deed}, no room at {way} {fate}: {broken!r}", deed, way, "–")
                    told(report.failures[-1])
                else:
                    report.passed(deed, way, ended)
                (disk / BALLAST).unlink(missing_ok=True)
                shutil.rmtree(where, ignore_errors=True)
    return report


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of a few MiB, mounted here; NoRights."""
    place.mkdir(parents=True)
    argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    if subprocess.run(argv, capture_output=True).returncode:
        raise NoRights("needs the right to mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _fates(on: Scene, deed: str) -> list[tuple[str, Fate]]:
    """Every place where the disk can be full."""
    where = on.place / f"course-{deed}"
    on.prepare(where, deed)
    with started(on, where, deed, Fate()) as process:
        said, _ = process.communicate(timeout=60)
    shutil.rmtree(where)
    if process.returncode:
        raise SystemExit(f"{deed} fails by itself: {said}")
    found = [("a full tmpfs", Fate(fill_at=at + 1)) for at in range(int(said.split()[-1]))]
    for name, times in calls_of(on, where, deed).items():
        if name in NEEDY:
            for when in range(1, times + 1):
                fault = f"inject={name}:error=ENOSPC:when={when}+"
                options = ("-e", f"trace={name}", "-e", fault)
                found.append((f"`{name}`", Fate(strace=options)))
    return found


def _spread(fates: list[tuple[str, Fate]], count: int) -> list[tuple[str, Fate]]:
    """Not more than `count` of them, from all over."""
    step = max(1.0, len(fates) / count)
    return [fates[int(at * step)] for at in range(min(count, len(fates)))]


def _trial(on: Scene, where: Path, deed: str, fate: Fate) -> str:
    on.prepare(where, deed)
    with started(on, where, deed, fate) as process:
        said, _ = process.communicate(timeout=60)
    if process.returncode not in (0, DISK_REFUSED):
        raise Broken(f"it ended with {process.returncode}: {said[-2000:]}")
    on.left(where, deed)
    (on.place / BALLAST).unlink(missing_ok=True)
    on.again(where, deed)
    return "a refusal of the disk" if process.returncode else "success: it was not needed"
