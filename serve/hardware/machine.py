"""What this machine has, as measured once. All memory in bytes."""

from dataclasses import dataclass, field
from typing import Literal

Isa = Literal["AVX2", "AVX-512", "AVX-512 BF16", "AMX BF16", "AMX INT8", "NEON", "SVE"]


@dataclass(frozen=True, slots=True)
class KnownGpu:
    """A kind of card, from its maker's data sheet (`source`).

    `memory_bytes`: what CUDA can reach, a little less than the sales figure. `bandwidth`: bytes/s.
    `flops`: dense (no sparsity) operations per second by number format: "fp16" (and bf16), "fp8",
    "fp4", "int8"; a format that it cannot compute in is not there. `link_bandwidth`: NVLink,
    bytes/s in both directions together; 0: PCIe only. `bridged`: how many cards a bridge joins,
    which is sold apart; 0: NVLink joins all cards of a box, or there is none. `is_unified`: memory
    shared with the CPU.
    """

    name: str
    memory_bytes: int
    bandwidth: int
    flops: tuple[tuple[str, int], ...]
    compute_capability: tuple[int, int]
    link_bandwidth: int
    source: str
    is_unified: bool = False
    bridged: int = 0

    def flops_of(self, number_format: str) -> int | None:
        """Operations per second; None: it cannot compute in this format."""
        return dict(self.flops).get(number_format)


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """Somebody on a card. None where the driver or the kernel does not say."""

    pid: int
    used_bytes: int | None
    command: str | None
    user: str | None


@dataclass(frozen=True, slots=True)
class Link:
    """How two cards (NVML indices) reach each other: NVLink with so many lanes, or through PCIe:
    one switch, several, the host bridge, between nodes of one socket, or between sockets."""

    first: int
    second: int
    kind: Literal["NVLINK", "PIX", "PXB", "PHB", "NODE", "SYS"]
    lanes: int = 0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA card (or MIG slice): `compute_capability` (9, 0) is an H100.

    `index`: NVML's (by PCI bus), a slice has its card's; `uuid` names it for CUDA_VISIBLE_DEVICES.
    `total_bytes` is what CUDA can reach, without the driver's `reserved_bytes`. `is_slice`: a MIG
    slice; a CUDA process sees one slice only, so no engine spans two. `known`: its data sheet; None
    for slices and for kinds that are not in the table. `energy_j`: what the card has used since its
    driver was loaded; None for slices, and for cards that do not count (before Volta).
    """

    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: tuple[int, int]
    is_slice: bool = False
    reserved_bytes: int = 0
    power_limit_w: float | None = None
    energy_j: float | None = None
    processes: tuple[GpuProcess, ...] = ()
    known: KnownGpu | None = None


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor as far as this process may use it (affinity and cgroup limits applied).

    `cores`: one logical CPU per physical core, those of one NUMA node side by side;
    `nodes`: the same, grouped by NUMA node. `node_free_bytes`: free memory of each of `nodes`,
    empty where there is one node only, or it is not known. `bandwidth`: of its memory, bytes/s as
    measured once on this machine; None: not measured.
    """

    name: str
    cores: tuple[int, ...]
    nodes: tuple[tuple[int, ...], ...]
    flags: frozenset[str]
    total_bytes: int
    free_bytes: int
    node_free_bytes: tuple[int, ...] = ()
    isa: tuple[Isa, ...] = ()
    bandwidth: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """`gpu_problem`: why GPUs are missing although a driver is there, or will not do (a driver that
    is too old), else None.

    `cuda`: the newest CUDA that the driver knows, (13, 0). `links`: all pairs of cards of which the
    driver tells anything; none between MIG slices. `hidden`: cards that are there, but that
    CUDA_VISIBLE_DEVICES keeps from us, by index. `is_imagined`: nobody measured it; somebody wants
    to know what such a machine could do.
    """

    cpu: Cpu
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    gpu_problem: str | None = None
    cuda: tuple[int, int] | None = None
    links: tuple[Link, ...] = field(default=())
    hidden: tuple[int, ...] = ()
    is_imagined: bool = False

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """What engines run on here by default."""
        return "cuda" if self.gpus else "cpu"
