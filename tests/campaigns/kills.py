"""The campaign `kills`: processes that end at random moments, and what they leave.

Three ways: SIGKILL at a random event (some bytes more, a file about to be opened), after a random
time, and, where strace is installed, at the entry of a random system call that changes the disk.
"""

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import cache
from itertools import cycle
from pathlib import Path

from serve.errors import InhouseError
from tests.campaigns.child import Fate, calls_of, started
from tests.campaigns.deeds import DEEDS
from tests.campaigns.oracle import Broken
from tests.campaigns.report import Report
from tests.campaigns.scenes import Scene, scene
from tests.campaigns.subject import subject

PROMISE = (
    "`kill -9` of a process that works on the store, at random moments: at an event of "
    "its own (bytes, a file opened), at a point in time, at a system call that changes the disk. "
    "After each, an oracle that shares no code with the store finds the whole model or none of it, "
    "and the same work, done again, succeeds."
)
TENSOR_BYTES = 256 * 1024  # shards large enough that many calls of progress come


class Courses:
    """How deeds go when nothing happens to them; looked at once each."""

    def __init__(self, on: Scene) -> None:
        self._on = on
        self.events = cache(self._events)
        self.calls = cache(self._calls)

    def _events(self, deed: str) -> tuple[int, float]:
        """The number of events, and the seconds."""
        where = self._on.place / f"course-{deed}"
        self._on.prepare(where, deed)
        with started(self._on, where, deed, Fate()) as process:
            began_s = time.monotonic()
            said, _ = process.communicate(timeout=60)
            duration_s = time.monotonic() - began_s
        if process.returncode:
            raise SystemExit(f"{deed} fails by itself: {said}")
        shutil.rmtree(where)
        return int(said.split()[-1]), duration_s

    def _calls(self, deed: str) -> tuple[tuple[str, int], ...]:
        """The system calls that change the disk, and how many of each."""
        where = self._on.place / f"calls-{deed}"
        return tuple(calls_of(self._on, where, deed).items())


def run(count: int, seed: int, place: Path, told: Callable[[str], None] = lambda _: None) -> Report:
    """End as many processes, each deed in each way, in a shuffled order again and again."""
    dice, files = random.Random(seed), subject(seed, TENSOR_BYTES)
    report = Report("kills", PROMISE, ("deed", "ended at", "left behind"))
    turns = [(deed, way) for deed in DEEDS for way in ("an event", "a moment", "a system call")]
    dice.shuffle(turns)
    with scene(files, place) as on:
        courses = Courses(on)
        for number, (deed, way) in enumerate(cycle(turns)):
            if report.total == count:
                break
            where = place / f"{number}"
            way, fate = _fate(dice, way, deed, courses)
            try:
                left = _trial(on, where, deed, fate)
            except (Broken, InhouseError) as broken:
                report.failed(f"{number}: {deed} at {way}: {broken!r}", deed, way, "–")
                told(report.failures[-1])
            else:
                if left is not None:  # else it was done before its time came: no trial
                    report.passed(deed, way, left)
            shutil.rmtree(where, ignore_errors=True)
    return report


def _fate(dice: random.Random, way: str, deed: str, courses: Courses) -> tuple[str, Fate]:
    events, duration_s = courses.events(deed)
    if way == "an event" and events:
        return way, Fate(kill_at=dice.randint(1, events))
    if way == "a system call" and (calls := courses.calls(deed)):
        name, times = dice.choice(calls)
        when = f"inject={name}:signal=SIGKILL:when={dice.randint(1, times)}"
        return way, Fate(strace=("-e", f"trace={name}", "-e", when))
    return "a moment", Fate(after_s=dice.uniform(0, duration_s))


def _trial(on: Scene, where: Path, deed: str, fate: Fate) -> str | None:
    """What the process left behind; None if it came to its end. Broken if what it left, or what
    comes after it, must not be."""
    on.prepare(where, deed)
    with started(on, where, deed, fate) as process:
        if fate.after_s is not None:
            try:
                process.wait(fate.after_s)
            except subprocess.TimeoutExpired:
                process.kill()
        said, _ = process.communicate(timeout=60)
    ended = process.returncode
    if ended not in (0, -9):
        raise Broken(f"it ended by itself with {ended}: {said[-500:]}")
    left = on.left(where, deed)
    on.again(where, deed)
    return left if ended else None
