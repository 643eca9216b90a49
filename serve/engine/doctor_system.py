"""What engines need of the operating system: read in one function, judged in others."""

import contextlib
import ctypes
import os
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from serve.engine.doctor_check import Check
from serve.units import show_bytes

GIB = 2**30
# vLLM's queues between its processes take up to 240 MiB each; Docker gives 64 MiB in all.
_ENOUGH_SHM_BYTES = 512 * 2**20
_ENOUGH_OPEN_FILES = 4096
# Each of an engine's processes has several pools with a thread per core (our choice of a limit).
_ENOUGH_PROCESSES = 2048
# Registered memory of NCCL's buffers, between cards over a network card.
_ENOUGH_LOCKED_BYTES = 64 * 2**20
_ROOM_TO_RUN_BYTES, _ROOM_TO_PULL_BYTES = GIB // 2, 20 * GIB
# API server, engine core and worker on a CPU, before any weights.
_LEAST_MEMORY_BYTES = 3 * GIB
_STRICT_OVERCOMMIT = "2"
# No machine that runs this is older: certificates and Hub tokens would be refused.
_BIRTHDAY_S = 1_735_689_600  # 2025-01-01
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 256


@dataclass(frozen=True, slots=True)
class System:
    """`limit_…`: hard limits of this process, -1 for none. `huge_pages`, `overcommit`: as the
    kernel's switches say it, None where there is no such switch."""

    shm_bytes: int
    limit_open_files: int
    limit_processes: int
    limit_locked_bytes: int
    huge_pages: str | None
    overcommit: str | None
    swap_bytes: int
    memory_bytes: int
    is_clock_synchronised: bool
    now_s: float


def read_system(root: Path = Path("/")) -> System:
    """Look now; takes under a millisecond."""
    meminfo = _meminfo(root)
    return System(
        shm_bytes=_size_of(root / "dev/shm"),
        limit_open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        limit_processes=_least(
            resource.getrlimit(resource.RLIMIT_NPROC)[1], _text(root / "sys/fs/cgroup/pids.max")
        ),
        limit_locked_bytes=resource.getrlimit(resource.RLIMIT_MEMLOCK)[1],
        huge_pages=_chosen(_text(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        overcommit=_text(root / "proc/sys/vm/overcommit_memory"),
        swap_bytes=meminfo.get("SwapTotal", 0),
        memory_bytes=meminfo.get("MemTotal", 0),
        is_clock_synchronised=_is_clock_synchronised(),
        now_s=time.time(),
    )


def check_shm(total_bytes: int) -> Check:
    """Without a PID namespace engines share the /dev/shm that is there."""
    is_ok = total_bytes >= _ENOUGH_SHM_BYTES
    cure = None if is_ok else "a larger /dev/shm (Docker: --shm-size=2g)"
    return Check("shared memory", is_ok, show_bytes(total_bytes), cure)


def check_open_files(limit: int) -> Check:
    """`limit`: the hard limit of this process, to which vLLM raises its own."""
    is_ok = limit == resource.RLIM_INFINITY or limit >= _ENOUGH_OPEN_FILES
    cure = None if is_ok else f"ulimit -n {_ENOUGH_OPEN_FILES} (systemd: LimitNOFILE=)"
    return Check("open files", is_ok, _limit(limit), cure)


def check_processes(limit: int) -> Check:
    """Threads count."""
    is_ok = limit == resource.RLIM_INFINITY or limit >= _ENOUGH_PROCESSES
    cure = None if is_ok else "ulimit -u unlimited (systemd: TasksMax=; Docker: --pids-limit -1)"
    return Check("processes", is_ok, _limit(limit), cure)


def check_locked_memory(limit_bytes: int) -> Check:
    """Matters where several cards talk to each other."""
    is_ok = limit_bytes == resource.RLIM_INFINITY or limit_bytes >= _ENOUGH_LOCKED_BYTES
    found = "unlimited" if limit_bytes == resource.RLIM_INFINITY else show_bytes(limit_bytes)
    cure = None if is_ok else "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity)"
    return Check("locked memory", is_ok, found, cure, is_needed=False)


def check_huge_pages(chosen: str | None) -> Check:
    """Weights on a CPU are read in large pieces; `chosen`: the kernel's choice."""
    if chosen != "never":
        return Check("huge pages", True, chosen or "the kernel has no switch for them", None)
    cure = "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled"
    return Check("huge pages", False, "never", cure, is_needed=False)


def check_overcommit(mode: str | None, swap_bytes: int) -> Check:
    """Engines reserve far more addresses than they touch."""
    swap = f"swap {show_bytes(swap_bytes)}" if swap_bytes else "no swap"
    if mode != _STRICT_OVERCOMMIT:
        return Check("overcommit", True, f"mode {mode or '0'}, {swap}", None)
    found = f"mode {mode}: what is reserved counts as used ({swap})"
    return Check("overcommit", False, found, "sysctl vm.overcommit_memory=0")


def check_memory(limit_bytes: int, machine_bytes: int) -> Check:
    """`limit_bytes`: what a cgroup leaves of the machine's memory."""
    is_ok = limit_bytes >= _LEAST_MEMORY_BYTES
    found = show_bytes(machine_bytes)
    if limit_bytes < machine_bytes:
        found = f"{show_bytes(limit_bytes)} of {found}, by a limit of the cgroup"
    cure = "a higher limit (Docker: --memory; systemd: MemoryMax=; Kubernetes: limits.memory)"
    return Check("memory", is_ok, found, None if is_ok else cure)


def check_disk(name: str, folder: Path) -> Check:
    """Room where `folder` lies or will lie: for logs and compiled programs, and for weights."""
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(nearest).free
    is_ok = free >= _ROOM_TO_PULL_BYTES
    cure = None if is_ok else "make room there, or put it elsewhere; inhouse gc shows what can go"
    found = f"{show_bytes(free)} free at {folder}"
    return Check(name, is_ok, found, cure, is_needed=free < _ROOM_TO_RUN_BYTES)


def check_clock(is_synchronised: bool, now_s: float) -> Check:
    """A clock that is far off breaks TLS and tokens; one that drifts, audit times."""
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now_s))
    if now_s < _BIRTHDAY_S:
        return Check("clock", False, f"wrong: {shown}", "set it (timedatectl set-ntp true)")
    if not is_synchronised:
        cure = "timedatectl set-ntp true (or chrony, ntpd)"
        return Check("clock", False, f"{shown}, not synchronised", cure, is_needed=False)
    return Check("clock", True, f"{shown}, synchronised", None)


def _limit(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else f"at most {limit}"


def _least(limit: int, cgroup: str | None) -> int:
    if cgroup is None or not cgroup.isdecimal():
        return limit
    return int(cgroup) if limit == resource.RLIM_INFINITY else min(limit, int(cgroup))


def _size_of(folder: Path) -> int:
    try:
        room = os.statvfs(folder)
    except OSError:  # there is none
        return 0
    return room.f_blocks * room.f_frsize


def _chosen(text: str | None) -> str | None:
    """`always [madvise] never` → madvise."""
    return text.partition("[")[2].partition("]")[0] or None if text is not None else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _meminfo(root: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        with contextlib.suppress(ValueError, IndexError):
            found[name] = int(value.split()[0]) * 1024
    return found


def _is_clock_synchronised() -> bool:
    """As the kernel says it; where it may not be asked, we have nothing to complain of."""
    state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return state != _TIME_ERROR
