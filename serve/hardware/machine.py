"""What this machine has, as measured once. All memory in bytes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA card (or MIG slice): `compute_capability` (9, 0) is an H100.

    `index`: NVML's (by PCI bus), a slice has its card's; `uuid` names it for CUDA_VISIBLE_DEVICES.
    `total_bytes` is what CUDA can reach, without the driver's reserve. `is_slice`: a MIG slice;
    a CUDA process sees one slice only, so no engine spans two.
    """

    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: tuple[int, int]
    is_slice: bool = False


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor as far as this process may use it (affinity and cgroup limits applied).

    `cores`: one logical CPU per physical core, those of one NUMA node side by side;
    `nodes`: the same, grouped by NUMA node. `node_free_bytes`: free memory of each of `nodes`,
    empty where there is one node only, or it is not known.
    """

    name: str
    cores: tuple[int, ...]
    nodes: tuple[tuple[int, ...], ...]
    flags: frozenset[str]
    total_bytes: int
    free_bytes: int
    node_free_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """`gpu_problem`: why GPUs are missing although a driver is there, else None."""

    cpu: Cpu
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    gpu_problem: str | None = None

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """What engines run on here by default."""
        return "cuda" if self.gpus else "cpu"
