"""How fast this machine's memory is: measured once, and kept."""

import ctypes
import json
import mmap
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Lock, Thread

from serve.disk import write_atomically
from serve.hardware.machine import Cpu

_FILE = "bandwidth.json"
# Of all buffers together, at most, and at most this part of the free memory. Copies of more than a
# cache's share go past the cache (glibc, non_temporal_threshold); hence few cores take much each.
_TOTAL_BYTES, _MEMORY_PART = 2**30, 8
_LEAST_BUFFER_BYTES = 4 * 2**20
_ROUNDS = 6
_BUDGET_S = 0.25  # after the buffers are filled
_WAIT_S = 20.0
_FILLING = 1
_LEAST_BUSY = 0.85  # of a thread's time: less, and somebody else had its core


@dataclass(frozen=True, slots=True)
class _Work:
    """`passes`: how often a byte of the buffer crosses the memory bus."""

    passes: int
    run: Callable[[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char], int], object]


def _scanner() -> Callable[..., object]:
    find = ctypes.CDLL(None).memchr
    find.restype = ctypes.c_void_p
    find.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    return find


def _works() -> tuple[_Work, ...]:
    """A copy is the faster measure of few cores; reads reach the limit where there are many, and
    are not slowed by what the cache does before it overwrites a line."""
    scan = _scanner()
    return (
        _Work(2, lambda source, target, size: ctypes.memmove(target, source, size)),
        _Work(1, lambda source, target, size: scan(source, _FILLING + 1, size)),
    )


def known_bandwidth(home: Path, cpu: Cpu) -> int | None:
    """Bytes/s as measured before on this processor with these cores; None: not yet."""
    try:
        kept = json.loads((home / _FILE).read_bytes())
        if kept["machine"] == _fingerprint(cpu) and type(kept["bandwidth"]) is int:
            return kept["bandwidth"] if kept["bandwidth"] > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or not ours: it is measured again
    return None


def measure_bandwidth(home: Path, cpu: Cpu) -> int | None:
    """Measure now (half a second, all cores) and keep it under `home`, if that can be written.

    Copies and reads of large buffers, one thread on each core, each with memory of its own NUMA
    node: the best round, all nodes together. It is not kept where other programs took the cores
    meanwhile. None: too little memory is free.
    """
    rounds = _measured(cpu)
    if rounds is None or not rounds.best:
        return None
    bandwidth = round(rounds.best)
    if rounds.is_disturbed:
        return bandwidth
    record = {"machine": _fingerprint(cpu), "bandwidth": bandwidth, "measured_at": time.time()}
    try:
        home.mkdir(parents=True, exist_ok=True)
        write_atomically(home / _FILE, json.dumps(record).encode())
    except OSError:
        pass  # a full or read-only disk: next time it is measured again
    return bandwidth


def _fingerprint(cpu: Cpu) -> str:
    nodes = "+".join(str(len(node)) for node in cpu.nodes)
    return f"{cpu.name}, {nodes} cores"


def _measured(cpu: Cpu) -> "_Rounds | None":
    cores = len(cpu.cores)
    size = min(_TOTAL_BYTES, cpu.free_bytes // _MEMORY_PART) // (2 * max(1, cores))
    if not cores or size < _LEAST_BUFFER_BYTES:
        return None
    rounds = _Rounds(cores, size)
    threads = [Thread(target=rounds.run, args=(core,), daemon=True) for core in cpu.cores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rounds


def _filled(size: int) -> ctypes.Array[ctypes.c_char]:
    """Memory of our own: pages that nobody wrote yet are all the same one."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    array = (ctypes.c_char * size).from_buffer(pages)
    ctypes.memset(array, _FILLING, size)
    return array


@dataclass(slots=True)
class _Rounds:
    """Threads that work at the same time; `best`: bytes/s of all of them in the best round."""

    threads: int
    size: int
    best: float = 0.0
    busy_s: float = 0.0
    _works: tuple[_Work, ...] = field(default_factory=_works)
    _barrier: Barrier = field(init=False)
    _lock: Lock = field(default_factory=Lock)
    _done: int = 0
    _began_s: float | None = None
    _left_s: float = _BUDGET_S

    @property
    def is_disturbed(self) -> bool:
        """Whether the threads had not their cores for themselves."""
        return self.busy_s < _LEAST_BUSY * (_BUDGET_S - self._left_s) * self.threads

    def __post_init__(self) -> None:
        self._barrier = Barrier(self.threads, self._tick, _WAIT_S)

    def _tick(self) -> None:
        """Between two rounds, while all threads wait."""
        if self._began_s is not None:
            took_s = time.perf_counter() - self._began_s
            passes = self._works[self._done % len(self._works)].passes
            self.best = max(self.best, passes * self.size * self.threads / took_s)
            self._left_s -= took_s
            self._done += 1
        self._began_s = time.perf_counter()

    def run(self, core: int) -> None:
        try:
            os.sched_setaffinity(0, {core})  # of this thread only; its memory is then near it
            source, target = _filled(self.size), _filled(self.size)
            self._barrier.wait()
            while self._done < _ROUNDS and self._left_s > 0:
                began_s = time.thread_time()
                self._works[self._done % len(self._works)].run(source, target, self.size)
                took_s = time.thread_time() - began_s
                self._barrier.wait()
                with self._lock:
                    self.busy_s += took_s
        except (OSError, MemoryError, BrokenBarrierError):
            self._barrier.abort()
