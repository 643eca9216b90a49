"""An object with the functions of `pynvml` that Inhouse uses, and knobs for what goes wrong."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml


@dataclass(frozen=True)
class FakeCard:
    """One card. `slices`: memory of its MIG slices (None: MIG is off). `is_lost`: off the bus."""

    name: str = "NVIDIA H100 80GB HBM3"
    total: int = 80 * 2**30
    reserved: int = 2**29
    free: int = 79 * 2**30
    capability: tuple[int, int] = (9, 0)
    slices: tuple[int, ...] | None = None
    is_lost: bool = False
    knows_mig: bool = True


@dataclass(frozen=True)
class _Slice:
    card: int
    number: int
    total: int


@dataclass
class FakeNvml:
    """`missing` "library" or "driver": what is not there. Counts its open sessions."""

    cards: tuple[FakeCard, ...] = ()
    missing: str | None = None
    driver: str | bytes = "580.65.06"
    sessions: int = field(default=0, init=False)

    NVMLError = pynvml.NVMLError
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_NotFound = pynvml.NVMLError_NotFound
    nvmlMemory_v2 = pynvml.nvmlMemory_v2

    def nvmlInit(self) -> None:
        if self.missing == "library":
            raise pynvml.NVMLError_LibraryNotFound()
        if self.missing == "driver":
            raise pynvml.NVMLError_DriverNotLoaded()
        self.sessions += 1

    def nvmlShutdown(self) -> None:
        self.sessions -= 1

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        return self.driver

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if self.cards[index].is_lost:
            raise pynvml.NVMLError_GpuIsLost()
        return index

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return self.cards[handle].capability

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        if not self.cards[handle].knows_mig:
            raise pynvml.NVMLError_NotSupported()
        mode = int(self.cards[handle].slices is not None)
        return [mode, mode]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, number: int) -> _Slice:
        slices = self.cards[handle].slices or ()
        if number >= len(slices):
            raise pynvml.NVMLError_NotFound()
        return _Slice(handle, number, slices[number])

    def nvmlDeviceGetUUID(self, handle: int | _Slice) -> str:
        if isinstance(handle, _Slice):
            return f"MIG-{handle.card}-{handle.number}"
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: int | _Slice) -> str:
        return self.cards[handle.card if isinstance(handle, _Slice) else handle].name

    def nvmlDeviceGetMemoryInfo(self, handle: int | _Slice, version: int) -> SimpleNamespace:
        assert version == pynvml.nvmlMemory_v2
        if isinstance(handle, _Slice):
            return SimpleNamespace(total=handle.total, reserved=0, free=handle.total)
        card = self.cards[handle]
        return SimpleNamespace(total=card.total, reserved=card.reserved, free=card.free)
