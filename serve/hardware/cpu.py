"""The processor and its memory, from /proc, /sys and the cgroups."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from serve.hardware.machine import Cpu, Isa

# cgroup v1 writes "no limit" as the largest multiple of a page (LONG_MAX rounded down).
NO_LIMIT = 1 << 62
# What vLLM's kernels for processors tell apart → the kernel's flags, all of which are needed.
_ISAS: dict[Isa, frozenset[str]] = {
    "AVX2": frozenset({"avx2"}),
    "AVX-512": frozenset({"avx512f", "avx512bw", "avx512vl"}),
    "AVX-512 BF16": frozenset({"avx512_bf16"}),
    "AMX BF16": frozenset({"amx_tile", "amx_bf16"}),
    "AMX INT8": frozenset({"amx_tile", "amx_int8"}),
    "NEON": frozenset({"asimd"}),
    "SVE": frozenset({"sve"}),
}


@dataclass(frozen=True, slots=True)
class SeenGroup:
    """One cgroup on the way up from ours: the text of its files, "" where a file is not there."""

    memory_limit: str
    memory_used: str
    memory_stat: str
    cpu_quota: str
    cpu_period: str


@dataclass(frozen=True, slots=True)
class SeenCpu:
    """The texts, unread. `siblings`: CPU → the CPUs of its core; `nodes`: (CPUs, meminfo) each."""

    affinity: frozenset[int]
    cpuinfo: str
    meminfo: str
    siblings: dict[int, str]
    nodes: tuple[tuple[str, str], ...]
    groups: tuple[SeenGroup, ...]


def read_cpu(root: Path, affinity: frozenset[int]) -> SeenCpu:
    """Read what the kernel says under `root` ("/"; a saved tree in tests)."""
    system = root / "sys/devices/system"
    return SeenCpu(
        affinity=affinity,
        cpuinfo=_text(root / "proc/cpuinfo"),
        meminfo=_text(root / "proc/meminfo"),
        siblings={
            cpu: _text(system / f"cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in affinity
        },
        nodes=tuple(
            (_text(node / "cpulist"), _text(node / "meminfo"))
            for node in sorted((system / "node").glob("node[0-9]*"), key=lambda n: int(n.name[4:]))
        ),
        groups=tuple(_groups(root)),
    )


def interpret_cpu(seen: SeenCpu) -> Cpu:
    """What of it this process may use.

    A CPU quota (`docker run --cpus`) shortens the list of cores: more threads than the quota pays
    for are stopped again and again in the middle of a step.
    """
    cores = _one_per_core(seen)
    node_sets = [(parse_cpu_list(cpus), meminfo) for cpus, meminfo in seen.nodes]
    placed = [
        ([core for core in cores if core in cpus], _node_free(meminfo))
        for cpus, meminfo in node_sets
    ]
    placed = [(on_node, free) for on_node, free in placed if on_node]
    if not placed:
        placed = [(cores, None)]
    placed = _within_quota(placed, _quota_cpus(seen.groups))
    memory = _kib_table(seen.meminfo)
    total, free = memory["MemTotal"], memory["MemAvailable"]
    for limit, used in filter(None, map(_memory_of, seen.groups)):
        total, free = min(total, limit), min(free, max(0, limit - used))
    # With one node the machine's own figures are the node's, and better: they know the watermarks.
    frees = [free for _, free in placed if free is not None and len(seen.nodes) > 1]
    flags = frozenset((_field(seen.cpuinfo, "flags") or _field(seen.cpuinfo, "Features")).split())
    return Cpu(
        name=_field(seen.cpuinfo, "model name") or "unknown processor",
        cores=tuple(core for on_node, _ in placed for core in on_node),
        nodes=tuple(tuple(on_node) for on_node, _ in placed),
        flags=flags,
        total_bytes=total,
        free_bytes=free,
        node_free_bytes=tuple(frees) if len(frees) == len(placed) else (),
        isa=tuple(isa for isa, needed in _ISAS.items() if needed <= flags),
    )


def parse_cpu_list(text: str) -> frozenset[int]:
    """`"0-2,8"` → {0, 1, 2, 8}, as the kernel writes sets of CPUs."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def _one_per_core(seen: SeenCpu) -> list[int]:
    """The first allowed CPU of every core; a hidden topology counts each CPU as a core."""
    cores = []
    for cpu in sorted(seen.affinity):
        allowed = parse_cpu_list(seen.siblings[cpu]) & seen.affinity
        if not allowed or cpu == min(allowed):
            cores.append(cpu)
    return cores


_Placed = list[tuple[list[int], int | None]]


def _within_quota(placed: _Placed, quota: int | None) -> _Placed:
    """The cores, node by node, until the quota is used up."""
    kept: _Placed = []
    left = quota if quota is not None else sum(len(cores) for cores, _ in placed)
    for cores, free in placed:
        if left > 0:
            kept.append((cores[:left], free))
        left -= len(cores)
    return kept


def _quota_cpus(groups: Iterable[SeenGroup]) -> int | None:
    """The least CPU quota on the way up, in CPUs (at least 1); None: no limit."""
    quotas = [
        max(1, int(group.cpu_quota) // int(group.cpu_period))
        for group in groups
        if group.cpu_quota not in ("", "max", "-1")
    ]
    return min(quotas, default=None)


def _memory_of(group: SeenGroup) -> tuple[int, int] | None:
    """(limit, used) in bytes; file pages that nobody uses are given back on demand, so not used."""
    if group.memory_limit in ("", "max") or int(group.memory_limit) >= NO_LIMIT:
        return None
    stat = dict(line.split() for line in group.memory_stat.splitlines())
    idle = stat.get("total_inactive_file", stat.get("inactive_file", "0"))
    return int(group.memory_limit), max(0, int(group.memory_used or "0") - int(idle))


def _groups(root: Path) -> Iterator[SeenGroup]:
    """Our cgroups and all above them, of both versions.

    In a container, /proc/self/cgroup may name a path of the host that is not mounted here; what is
    mounted is then the container's own group, at the top.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for folder in _upwards(mounts / (controllers or "."), path):
            if controllers == "":
                quota, _, period = _text(folder / "cpu.max").partition(" ")
                yield SeenGroup(
                    memory_limit=_text(folder / "memory.max"),
                    memory_used=_text(folder / "memory.current"),
                    memory_stat=_text(folder / "memory.stat"),
                    cpu_quota=quota,
                    cpu_period=period,
                )
            else:
                yield SeenGroup(
                    memory_limit=_text(folder / "memory.limit_in_bytes"),
                    memory_used=_text(folder / "memory.usage_in_bytes"),
                    memory_stat=_text(folder / "memory.stat"),
                    cpu_quota=_text(folder / "cpu.cfs_quota_us"),
                    cpu_period=_text(folder / "cpu.cfs_period_us"),
                )


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    parts = [part for part in path.split("/") if part]
    if ".." not in parts:  # a cgroup namespace shows groups outside of it as /../..
        for depth in range(len(parts), 0, -1):
            yield mount.joinpath(*parts[:depth])
    yield mount


def _node_free(meminfo: str) -> int | None:
    """Free bytes of a NUMA node, by vLLM's own sum (utils/cpu_resource_utils.py of 0.32)."""
    table = _kib_table("\n".join(line.split(maxsplit=2)[2] for line in meminfo.splitlines()))
    wanted = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")
    return sum(table[key] for key in wanted) if set(wanted) <= set(table) else None


def _kib_table(meminfo: str) -> dict[str, int]:
    """`MemFree:  12 kB` lines as bytes."""
    rows = (line.replace(":", " ").split() for line in meminfo.splitlines())
    return {row[0]: int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}


def _field(cpuinfo: str, name: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _text(path: Path) -> str:
    """The file's text, or "" where there is none: not every kernel and container shows all."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
