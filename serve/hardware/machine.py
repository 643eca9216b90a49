"""What this machine has, as measured once. All memory in bytes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA card (or MIG slice): `compute_capability` (9, 0) is an H100."""

    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor as far as this process may use it (affinity and cgroup limits applied).

    `cores`: one logical CPU per physical core, those of one NUMA node side by side;
    `nodes`: the same, grouped by NUMA node.
    """

    name: str
    cores: tuple[int, ...]
    nodes: tuple[tuple[int, ...], ...]
    flags: frozenset[str]
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Machine:
    """`gpu_problem`: why there are no GPUs although a driver is there, else None."""

    cpu: Cpu
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    gpu_problem: str | None = None

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """What engines run on here by default."""
        return "cuda" if self.gpus else "cpu"
