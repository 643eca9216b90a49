"""The whole machine in one call."""

import os
from pathlib import Path

from serve.hardware.cpu import interpret_cpu, read_cpu
from serve.hardware.machine import Machine
from serve.hardware.nvml import interpret_gpus, read_gpus


def read_machine() -> Machine:
    """Measure now. A missing driver or a broken card is a fact of the result, never an error."""
    cpu = interpret_cpu(read_cpu(Path("/"), frozenset(os.sched_getaffinity(0))))
    seen = read_gpus()
    return Machine(cpu, interpret_gpus(seen), seen.driver, seen.problem)
