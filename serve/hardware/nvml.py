"""NVIDIA cards through NVML: the only place that knows `pynvml`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pynvml

from serve.hardware.machine import Gpu


@dataclass(frozen=True, slots=True)
class SeenCard:
    """What NVML says of one card or MIG slice, as it says it. Memory in bytes."""

    index: int
    uuid: str
    name: str
    total: int
    reserved: int
    free: int
    capability: tuple[int, int]
    is_slice: bool


@dataclass(frozen=True, slots=True)
class SeenGpus:
    """`driver` None: there is none (or it cannot be asked). `problem`: why cards are missing."""

    cards: tuple[SeenCard, ...] = ()
    driver: str | None = None
    problem: str | None = None


def read_gpus(nvml: Any = pynvml) -> SeenGpus:
    """Ask the driver for all cards. Never raises: what cannot be read becomes the `problem`."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        return SeenGpus()
    except nvml.NVMLError as error:
        return SeenGpus(problem=f"the NVIDIA driver cannot be asked: {error}")
    cards: list[SeenCard] = []
    problems: list[str] = []
    driver: str | None = None
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                cards.extend(_card(nvml, index))
            except nvml.NVMLError as error:
                problems.append(f"GPU {index}: {error}")
    except nvml.NVMLError as error:
        problems.append(str(error))
    finally:
        nvml.nvmlShutdown()
    return SeenGpus(tuple(cards), driver, "; ".join(problems) or None)


def interpret_gpus(seen: SeenGpus) -> tuple[Gpu, ...]:
    """Cards as the planner needs them.

    NVML's total counts what the driver reserves for itself; CUDA, and so vLLM's share of it, does
    not see that part (an H100 of 79.65 GiB in NVML has 79.18 GiB in vLLM's logs).
    """
    return tuple(
        Gpu(
            index=card.index,
            uuid=card.uuid,
            name=card.name,
            total_bytes=card.total - card.reserved,
            free_bytes=card.free,
            compute_capability=card.capability,
            is_slice=card.is_slice,
        )
        for card in seen.cards
    )


def _card(nvml: Any, index: int) -> list[SeenCard]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    # A slice does not know its compute capability; its card does.
    capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
    if not _has_slices(nvml, handle):
        return [_seen(nvml, handle, index, capability, is_slice=False)]
    return [_seen(nvml, part, index, capability, is_slice=True) for part in _slices(nvml, handle)]


def _has_slices(nvml: Any, handle: Any) -> bool:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError_NotSupported:
        return False
    return bool(current)


def _slices(nvml: Any, handle: Any) -> Iterator[Any]:
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError_NotFound:
            continue


def _seen(
    nvml: Any, handle: Any, index: int, capability: tuple[int, ...], *, is_slice: bool
) -> SeenCard:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    return SeenCard(
        index=index,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total=memory.total,
        reserved=memory.reserved,
        free=memory.free,
        capability=(capability[0], capability[1]),
        is_slice=is_slice,
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
