"""What CUDA engines need of the driver, the cards and the tools that build their kernels."""

import os
import shutil
from pathlib import Path

from serve.engine.doctor_check import Check
from serve.engine.runtime import Runtime
from serve.hardware import Machine

# Turing: what is older, vLLM's wheels have no code for.
_LEAST_CAPABILITY = (7, 5)
_LEAST_CUDA = (13, 0)
_DRIVER_CURE = "install NVIDIA driver 580 or newer (in a container: --gpus all)"


def check_driver(machine: Machine) -> Check:
    """The driver, and that it shows all its cards."""
    name = "NVIDIA driver"
    if machine.gpu_problem is not None:
        return Check(name, False, machine.gpu_problem, _DRIVER_CURE)
    if machine.driver is None or not machine.gpus:
        hidden = ", ".join(map(str, machine.hidden))
        found = f"no card that may be used (hidden: {hidden})" if hidden else "none"
        cure = "unset CUDA_VISIBLE_DEVICES, or correct it" if hidden else _DRIVER_CURE
        return Check(name, False, found, cure)
    return Check(name, True, machine.driver, None)


def check_cuda(cuda: tuple[int, int] | None) -> Check:
    """`cuda`: the newest that the driver knows."""
    if cuda is None:
        return Check("CUDA", False, "the driver does not say", _DRIVER_CURE)
    found = ".".join(map(str, cuda))
    is_ok = cuda >= _LEAST_CUDA
    return Check("CUDA", is_ok, f"up to {found}", None if is_ok else _DRIVER_CURE)


def check_capability(machine: Machine) -> Check:
    """Every card must be one that vLLM has code for."""
    old = [gpu for gpu in machine.gpus if gpu.compute_capability < _LEAST_CAPABILITY]
    if old:
        found = "; ".join(
            f"GPU {gpu.index} ({gpu.name}) has {_dotted(gpu.compute_capability)}" for gpu in old
        )
        cure = "leave these cards out (CUDA_VISIBLE_DEVICES): vLLM's code begins at 7.5"
        return Check("compute capability", False, found, cure)
    found = ", ".join(sorted({_dotted(gpu.compute_capability) for gpu in machine.gpus}))
    return Check("compute capability", True, found, None)


def check_strangers(strangers: tuple[str, ...]) -> Check:
    """`strangers`: who else holds memory of the cards, one sentence each."""
    if not strangers:
        return Check("cards", True, "nobody else is on them", None)
    cure = "plans use what is free; stop these for more room, or hide the card"
    return Check("cards", False, "; ".join(strangers), cure, is_needed=False)


def check_nvcc(place: str | None) -> Check:
    """FlashInfer builds at the first start what its wheel has not ready for a card."""
    if place is not None:
        return Check("nvcc", True, place, None)
    found = "none (kernels that are not ready for this card cannot be built)"
    return Check("nvcc", False, found, "install the CUDA toolkit, or inhouse engine install", False)


def find_nvcc(runtime: Runtime) -> str | None:
    """The CUDA compiler of the system, or the one that came with the runtime."""
    packages = runtime.python.parent.parent.glob("lib/python3*/site-packages/nvidia/cu*")
    places = (home / "bin" / "nvcc" for home in (*sorted(packages), Path("/usr/local/cuda")))
    there = (str(place) for place in places if os.access(place, os.X_OK))
    return shutil.which("nvcc") or next(there, None)


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
