"""What this machine has, or another could. Reads it in one function, interprets it in another."""

from serve.hardware.known import known_gpus
from serve.hardware.machine import Cpu, Gpu, Machine
from serve.hardware.reading import read_machine
from serve.hardware.wanted import imagine

__all__ = ["Cpu", "Gpu", "Machine", "imagine", "known_gpus", "read_machine"]
