"""An object with the functions of `pynvml` that Inhouse uses, and knobs for what goes wrong."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass(frozen=True)
class FakeCard:
    """One card. `slices`: memory of its MIG slices (None: MIG is off). `is_lost`: off the bus;
    `lost_at`: the function at which it falls off. `unsupported`: functions that it does not know.
    `processes`: (pid, bytes) who compute, `drawing`: who draw. `has_memory` False: the processor's.
    """

    name: str = "NVIDIA H100 80GB HBM3"
    total: int = 80 * 2**30
    reserved: int = 2**29
    free: int = 79 * 2**30
    capability: tuple[int, int] = (9, 0)
    slices: tuple[int, ...] | None = None
    is_lost: bool = False
    lost_at: str | None = None
    knows_mig: bool = True
    power_mw: int = 700_000
    energy_mj: int = 5_000_000
    processes: tuple[tuple[int, int | None], ...] = ()
    drawing: tuple[tuple[int, int | None], ...] = ()
    has_memory: bool = True
    unsupported: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Slice:
    card: int
    number: int
    total: int


_Handle = int | _Slice


@dataclass
class FakeNvml:
    """`missing` "library" or "driver": what is not there. Counts its open sessions.

    `bridges`: NVLink lanes between two cards; `switch_lanes`: lanes of every card into switches.
    `ancestors`: NVML's level on PCIe, for pairs that do not share a host bridge. `unknown`:
    functions that this driver does not have.
    """

    cards: tuple[FakeCard, ...] = ()
    missing: str | None = None
    driver: str | bytes = "580.65.06"
    cuda: int = 13000
    bridges: dict[tuple[int, int], int] = field(default_factory=dict)
    switch_lanes: int = 0
    ancestors: dict[tuple[int, int], int] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    sessions: int = field(default=0, init=False)

    NVMLError = pynvml.NVMLError
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_NotFound = pynvml.NVMLError_NotFound
    NVMLError_GpuIsLost = pynvml.NVMLError_GpuIsLost
    NVMLError_ResetRequired = pynvml.NVMLError_ResetRequired
    NVMLError_GpuNotFound = pynvml.NVMLError_GpuNotFound
    nvmlMemory_v2 = pynvml.nvmlMemory_v2
    NVML_P2P_CAPS_INDEX_NVLINK = pynvml.NVML_P2P_CAPS_INDEX_NVLINK
    NVML_P2P_STATUS_OK = pynvml.NVML_P2P_STATUS_OK
    NVML_NVLINK_MAX_LINKS = pynvml.NVML_NVLINK_MAX_LINKS

    def nvmlInit(self) -> None:
        if self.missing == "library":
            raise pynvml.NVMLError_LibraryNotFound()
        if self.missing == "driver":
            raise pynvml.NVMLError_DriverNotLoaded()
        self.sessions += 1

    def nvmlShutdown(self) -> None:
        self.sessions -= 1

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        self._needs("nvmlSystemGetDriverVersion")
        return self.driver

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        self._needs("nvmlSystemGetCudaDriverVersion")
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:
        self._needs("nvmlDeviceGetCount")
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if self.cards[index].is_lost:
            raise pynvml.NVMLError_GpuIsLost()
        return index

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return self._ask("nvmlDeviceGetCudaComputeCapability", handle).capability

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return self._ask("nvmlDeviceGetTotalEnergyConsumption", handle).energy_mj

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return self._ask("nvmlDeviceGetEnforcedPowerLimit", handle).power_mw

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        card = self._ask("nvmlDeviceGetMigMode", handle)
        if not card.knows_mig:
            raise pynvml.NVMLError_NotSupported()
        mode = int(card.slices is not None)
        return [mode, mode]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, number: int) -> _Slice:
        slices = self.cards[handle].slices or ()
        if number >= len(slices):
            raise pynvml.NVMLError_NotFound()
        return _Slice(handle, number, slices[number])

    def nvmlDeviceGetUUID(self, handle: _Handle) -> str:
        self._ask("nvmlDeviceGetUUID", handle)
        if isinstance(handle, _Slice):
            return f"MIG-{handle.card}-{handle.number}"
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: _Handle) -> str | bytes:
        return self._ask("nvmlDeviceGetName", handle).name

    def nvmlDeviceGetMemoryInfo(self, handle: _Handle, version: int | None = None) -> Any:
        assert version in (None, pynvml.nvmlMemory_v2)
        suffix = "" if version is None else "_v2"
        card = self._ask(f"nvmlDeviceGetMemoryInfo{suffix}", handle)
        if not card.has_memory:
            raise pynvml.NVMLError_NotSupported()
        if isinstance(handle, _Slice):
            return SimpleNamespace(total=handle.total, reserved=0, free=handle.total)
        known = SimpleNamespace(total=card.total, free=card.free)
        if version is not None:
            known.reserved = card.reserved
        return known

    def nvmlDeviceGetComputeRunningProcesses(self, handle: _Handle) -> list[SimpleNamespace]:
        card = self._ask("nvmlDeviceGetComputeRunningProcesses", handle)
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in card.processes]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: _Handle) -> list[SimpleNamespace]:
        card = self._ask("nvmlDeviceGetGraphicsRunningProcesses", handle)
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in card.drawing]

    def nvmlDeviceGetP2PStatus(self, first: int, second: int, kind: int) -> int:
        self._ask("nvmlDeviceGetP2PStatus", first)
        assert kind == pynvml.NVML_P2P_CAPS_INDEX_NVLINK
        is_joined = self.switch_lanes or (first, second) in self.bridges
        status = pynvml.NVML_P2P_STATUS_OK if is_joined else pynvml.NVML_P2P_STATUS_NOT_SUPPORTED
        return int(status)

    def nvmlDeviceGetTopologyCommonAncestor(self, first: int, second: int) -> int:
        self._ask("nvmlDeviceGetTopologyCommonAncestor", first)
        return self.ancestors.get((first, second), int(pynvml.NVML_TOPOLOGY_HOSTBRIDGE))

    def nvmlDeviceGetNvLinkState(self, handle: int, lane: int) -> int:
        self._ask("nvmlDeviceGetNvLinkState", handle)
        if lane >= max(12, self.switch_lanes):
            raise pynvml.NVMLError_InvalidArgument()  # as a card with fewer lanes says
        return int(lane < len(self._ends(handle)))

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle: int, lane: int) -> SimpleNamespace:
        return SimpleNamespace(busId=self._ends(handle)[lane])

    def nvmlDeviceGetPciInfo(self, handle: int) -> SimpleNamespace:
        self._ask("nvmlDeviceGetPciInfo", handle)
        return SimpleNamespace(busId=_address(handle))

    def _ends(self, handle: int) -> list[str]:
        ends = ["0000:ff:00.0"] * self.switch_lanes
        for pair, lanes in self.bridges.items():
            if handle in pair:
                ends += [_address(pair[1] if handle == pair[0] else pair[0])] * lanes
        return ends

    def _ask(self, function: str, handle: _Handle) -> FakeCard:
        self._needs(function)
        card = self.cards[handle.card if isinstance(handle, _Slice) else handle]
        if card.lost_at == function:
            raise pynvml.NVMLError_GpuIsLost()
        if function in card.unsupported:
            raise pynvml.NVMLError_NotSupported()
        return card

    def _needs(self, function: str) -> None:
        if function in self.unknown:
            raise pynvml.NVMLError_FunctionNotFound()


def _address(card: int) -> str:
    return f"0000:{card:02x}:00.0"
