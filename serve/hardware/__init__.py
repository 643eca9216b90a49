"""What this machine has. Reads it in one function, interprets it in another."""

from serve.hardware.machine import Cpu, Gpu, Machine
from serve.hardware.reading import read_machine

__all__ = ["Cpu", "Gpu", "Machine", "read_machine"]
