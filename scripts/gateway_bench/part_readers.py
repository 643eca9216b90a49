"""The part `readers`: thousands of streams that are open at once, and what memory they hold."""

import json
import resource
import subprocess
import threading
import time
from dataclasses import dataclass, field

from gateway_bench.bodies import Load
from gateway_bench.contenders import STRAIGHT, Contender, started
from gateway_bench.machine import MIB, resident_bytes
from gateway_bench.measuring import Bench, Effort, number, say
from gateway_bench.native import ToolFailed
from gateway_bench.page import Aim, prose, table
from gateway_bench.part_load import SHOWN

_A_SECOND = 500  # opened
_ENDLESS = 10_000_000  # events: more than anybody reads
_SPARE_FILES = 200  # of a process that holds two for each reader
_SETTLED = 0.25  # of the time, before growth is looked for
_FLAT = 0.02  # growth of this share, or less, is none
_AIM_MIB = 80


@dataclass(frozen=True, slots=True)
class Way:
    """`pace_us`: of each stream's events. `read_bytes` 0: whatever is there, every `every_ms`."""

    text: str
    pace_us: int
    read_bytes: int
    every_ms: int


WAYS = (
    Way("an event a second each, read as they come", 1_000_000, 0, 1000),
    Way("all the upstream is let write, 400 bytes a second each are read", 0, 400, 1000),
)


@dataclass(slots=True)
class Watch:
    """The resident memory of a server, second by second."""

    pid: int
    samples: list[tuple[float, int]] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.is_over.wait(1.0):
            self.samples.append((time.monotonic(), resident_bytes(self.pid)))

    def between(self, start: float, end: float) -> list[int]:
        return [size for at, size in self.samples if start <= at <= end]


def measure(bench: Bench) -> tuple[str, list[Aim]]:
    count = most_readers(bench.effort.readers)
    rows, aims = [], []
    for name in bench.names:
        if name == STRAIGHT:
            continue
        for way in WAYS:
            say(f"{count} slow readers on {name}, {bench.effort.minutes:g} min: {way.text}")
            try:
                row, found = _one(bench, name, way, count)
            except ToolFailed as error:
                bench.failures.append(str(error))
                continue
            rows.append(row)
            say("  " + ", ".join(row[2:]))
            aims += found
    head = ["streams", "server", "held", "not", "before", "all open", "end", "most", "growth"]
    text = (
        f"{count:,} streams are opened, {_A_SECOND} a second, and held for "
        f"{bench.effort.minutes:g} minutes on a server that was just started. Resident memory in "
        "MiB; held: those whose answer had begun and went on; growth: from the first quarter's end "
        "to the end."
    )
    if count < bench.effort.readers:
        text += (
            f" (A process may have no more files open here: {bench.effort.readers:,} were wanted.)"
        )
    return "\n\n".join([prose(text), table(head, rows), *bench.failures]), aims


def most_readers(wanted: int) -> int:
    """As many as a server can hold, that has two files for each."""
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(wanted, (most_files - _SPARE_FILES) // 2)


def _one(bench: Bench, name: str, way: Way, count: int) -> tuple[list[str], list[Aim]]:
    alone = f"{name}-readers-{WAYS.index(way)}"
    plan = bench.plan.below(alone)
    with started(plan, name) as contender:
        return _hold(bench, contender, way, count)


def _hold(bench: Bench, contender: Contender, way: Way, count: int) -> tuple[list[str], list[Aim]]:
    load = Load(count, events=_ENDLESS, pace_us=way.pace_us)
    before = resident_bytes(contender.pid)
    watch = Watch(contender.pid)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        with bench.plan.tools.readers(
            contender.target, load, _A_SECOND, bench.effort.minutes * 60,
            (way.read_bytes, way.every_ms),
        ) as process:  # fmt: skip
            said, open_at, ends_at = _follow(process, bench.effort)
    finally:
        watch.is_over.set()
        thread.join()
    return _told(contender, way, said, before, watch, (open_at, ends_at))


def _follow(
    process: "subprocess.Popen[str]", effort: Effort
) -> tuple[dict[str, int], float, float]:
    assert process.stdout is not None
    first = process.stdout.readline()
    if not first.startswith("open"):
        raise ToolFailed("the readers did not open")
    open_at = time.monotonic()
    last = process.stdout.readline()
    if not last.startswith("{"):
        raise ToolFailed("the readers gave up")
    return json.loads(last), open_at, time.monotonic()


def _told(
    contender: Contender, way: Way, said: dict[str, int], before: int, watch: Watch,
    span: tuple[float, float],
) -> tuple[list[str], list[Aim]]:  # fmt: skip
    open_at, ends_at = span
    length = ends_at - open_at
    early = watch.between(open_at, open_at + _SETTLED * length) or [before]
    late = watch.between(ends_at - 0.1 * length, ends_at) or early
    most = max(size for _, size in watch.samples)
    growth = (late[-1] - early[-1]) / early[-1]
    sizes = [f"{size / MIB:.0f}" for size in (before, early[0], late[-1], most)]
    held = said["held"] - said["refused"]
    row = [way.text, SHOWN.get(contender.name, contender.name), f"{held:,}"]
    row += [f"{said['opened'] - held:,}", *sizes, f"{growth:+.1%}"]
    if contender.gateway is None:
        return row, []
    kept = f"{held:,} readers, {way.text}"
    flat = Aim(f"resident memory is flat: {kept}", f"{growth:+.1%}", growth <= _FLAT)
    size = f"{number(most / MIB)} MiB"
    small = Aim(f"resident memory ≤ {_AIM_MIB} MiB with {kept}", size, most <= _AIM_MIB * MIB)
    return row, [flat, small]
