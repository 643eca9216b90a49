"""Machines as they would be read, from a fake driver."""

from serve.hardware import Cpu, Machine
from serve.hardware.machine import GpuProcess
from serve.hardware.nvml import read_gpus
from serve.hardware.reading import interpret_machine
from tests.fakes.fake_nvml import FakeNvml

GIB = 2**30
CPU = Cpu(
    name="Big CPU",
    cores=(0, 1, 2, 3),
    nodes=((0, 1), (2, 3)),
    flags=frozenset({"avx2"}),
    total_bytes=120 * GIB,
    free_bytes=100 * GIB,
    node_free_bytes=(40 * GIB, 60 * GIB),
    isa=("AVX2",),
    bandwidth=200_000_000_000,
)


def machine_of(
    nvml: FakeNvml, visible: str | None = None, owners: dict[int, GpuProcess] | None = None
) -> Machine:
    """What `read_machine` would give where this driver is."""
    return interpret_machine(CPU, read_gpus(nvml), owners or {}, visible)
