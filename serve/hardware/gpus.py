"""Cards as the planner needs them, from what the driver said. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from serve.hardware.known import find_known
from serve.hardware.machine import Cpu, Gpu, GpuProcess, Link
from serve.hardware.nvml import SeenCard, SeenGpus, SeenLink

# The wheels of vLLM that the runtimes install are built with CUDA 13, which needs a driver of this
# branch (CUDA Toolkit 13.0 release notes, table of drivers).
LEAST_DRIVER = 580
LEAST_CUDA = "CUDA 13"

_PCIE: dict[int, Literal["PIX", "PXB", "PHB", "NODE", "SYS"]] = {
    0: "PIX",  # two processors on one board
    10: "PIX",
    20: "PXB",
    30: "PHB",
    40: "NODE",
    50: "SYS",
}


def interpret_gpus(
    seen: SeenGpus, cpu: Cpu, owners: Mapping[int, GpuProcess] | None = None
) -> tuple[Gpu, ...]:
    """The cards. `owners`: who the processes are, by pid; those that it lacks are known by pid.

    NVML's total counts what the driver reserves for itself; CUDA, and so vLLM's share of it, does
    not see that part (an H100 of 79.65 GiB in NVML has 79.18 GiB in vLLM's logs). A card without
    memory of its own has the processor's.
    """
    return tuple(_gpu(card, cpu, owners or {}) for card in seen.cards)


def interpret_links(seen: SeenGpus) -> tuple[Link, ...]:
    """How cards reach each other; pairs of which the driver tells nothing are left out."""
    return tuple(link for link in map(_link, seen.links) if link is not None)


def interpret_cuda(seen: SeenGpus) -> tuple[int, int] | None:
    """13010 → (13, 1)."""
    return None if seen.cuda is None else (seen.cuda // 1000, seen.cuda % 1000 // 10)


def interpret_problem(seen: SeenGpus) -> str | None:
    """Why cards are missing, or will not do: a driver that is too old for what would run here."""
    branch = (seen.driver or "").partition(".")[0]
    if seen.driver and branch.isdecimal() and int(branch) < LEAST_DRIVER:
        old = (
            f"the NVIDIA driver {seen.driver} is too old:"
            f" {LEAST_CUDA} needs {LEAST_DRIVER} or newer"
        )
        return f"{old}; {seen.problem}" if seen.problem else old
    return seen.problem


def _gpu(card: SeenCard, cpu: Cpu, owners: Mapping[int, GpuProcess]) -> Gpu:
    total, free, reserved = cpu.total_bytes, cpu.free_bytes, 0
    if card.memory is not None:
        reserved = card.memory.reserved or 0
        total, free = card.memory.total - reserved, card.memory.free
    return Gpu(
        index=card.index,
        uuid=card.uuid,
        name=card.name,
        total_bytes=total,
        free_bytes=min(free, total),
        compute_capability=card.capability,
        is_slice=card.is_slice,
        reserved_bytes=reserved,
        power_limit_w=None if card.power_limit_mw is None else card.power_limit_mw / 1000,
        energy_j=None if card.energy_mj is None or card.is_slice else card.energy_mj / 1000,
        processes=tuple(_process(pid, used, owners) for pid, used in card.processes),
        known=None if card.is_slice else find_known(card.name, total),
    )


def _process(pid: int, used: int | None, owners: Mapping[int, GpuProcess]) -> GpuProcess:
    owner = owners.get(pid, GpuProcess(pid, None, None, None))
    return replace(owner, used_bytes=used)


def _link(seen: SeenLink) -> Link | None:
    if seen.is_nvlink:
        return Link(seen.first, seen.second, "NVLINK", seen.lanes)
    kind = None if seen.ancestor is None else _PCIE.get(seen.ancestor)
    return Link(seen.first, seen.second, kind) if kind else None
