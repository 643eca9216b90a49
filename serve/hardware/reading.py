"""The whole machine in one call."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from serve.hardware.bandwidth import known_bandwidth, measure_bandwidth
from serve.hardware.cpu import interpret_cpu, read_cpu
from serve.hardware.gpus import interpret_cuda, interpret_gpus, interpret_links, interpret_problem
from serve.hardware.machine import Cpu, GpuProcess, Machine
from serve.hardware.nvml import SeenGpus, read_gpus
from serve.hardware.owners import read_owners
from serve.hardware.visible import visible_gpus

_ROOT = Path("/")


def read_machine(
    visible: str | None = None, home: Path | None = None, *, is_measured: bool = False
) -> Machine:
    """Measure now. A missing driver or a broken card is a fact of the result, never an error.

    `visible`: CUDA_VISIBLE_DEVICES; None: not set. `home`: where the memory bandwidth of the
    processor is kept since it was measured; `is_measured`: measure it if it was not yet.
    """
    cpu = interpret_cpu(read_cpu(_ROOT, frozenset(os.sched_getaffinity(0))))
    if home is not None:
        bandwidth = known_bandwidth(home, cpu)
        if bandwidth is None and is_measured:
            bandwidth = measure_bandwidth(home, cpu)
        cpu = replace(cpu, bandwidth=bandwidth)
    seen = read_gpus()
    pids = {pid for card in seen.cards for pid, _ in card.processes}
    return interpret_machine(cpu, seen, read_owners(_ROOT, pids), visible)


def interpret_machine(
    cpu: Cpu, seen: SeenGpus, owners: Mapping[int, GpuProcess], visible: str | None
) -> Machine:
    """What of it we may use. Pure."""
    there = interpret_gpus(seen, cpu, owners)
    gpus = visible_gpus(there, visible)
    ours = {gpu.index for gpu in gpus}
    return Machine(
        cpu,
        gpus,
        driver=seen.driver,
        gpu_problem=interpret_problem(seen),
        cuda=interpret_cuda(seen),
        links=tuple(k for k in interpret_links(seen) if {k.first, k.second} <= ours),
        hidden=tuple(sorted({gpu.index for gpu in there} - ours)),
    )
