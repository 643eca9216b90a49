"""NVIDIA cards through NVML: the only place that knows `pynvml`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

# Old and new drivers, cards, containers and virtual machines each know only some functions. What is
# not told of a card must not lose the card; only the loss of the card itself does.
_LOST = ("NVMLError_GpuIsLost", "NVMLError_ResetRequired", "NVMLError_GpuNotFound")


@dataclass(frozen=True, slots=True)
class SeenMemory:
    """NVML's figures. `reserved` None: an old driver, that counts it as used."""

    total: int
    free: int
    reserved: int | None


@dataclass(frozen=True, slots=True)
class SeenCard:
    """What NVML says of one card or MIG slice, as it says it. Memory in bytes.

    `memory` None: the card has none of its own (GB10, Jetson). `processes`: (pid, bytes) each.
    """

    index: int
    uuid: str
    name: str
    memory: SeenMemory | None
    capability: tuple[int, int]
    is_slice: bool
    power_limit_mw: int | None = None
    energy_mj: int | None = None
    processes: tuple[tuple[int, int | None], ...] = ()


@dataclass(frozen=True, slots=True)
class SeenLink:
    """Two cards. `ancestor`: NVML's level of what they have in common on PCIe; None: not told."""

    first: int
    second: int
    is_nvlink: bool
    lanes: int
    ancestor: int | None


@dataclass(frozen=True, slots=True)
class SeenGpus:
    """`driver` None: there is none (or it cannot be asked). `problem`: why cards are missing."""

    cards: tuple[SeenCard, ...] = ()
    driver: str | None = None
    problem: str | None = None
    cuda: int | None = None
    links: tuple[SeenLink, ...] = ()


def read_gpus(nvml: Any = None) -> SeenGpus:
    """Ask the driver for all cards. Never raises: what cannot be read becomes the `problem`.

    `nvml`: `pynvml`, or what has its functions.
    """
    if nvml is None:
        import pynvml  # 8 ms, and plans for imagined machines need none of it

        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        return SeenGpus()
    except nvml.NVMLError as error:
        return SeenGpus(problem=f"the NVIDIA driver cannot be asked: {error}")
    try:
        return _all(nvml)
    except nvml.NVMLError as error:
        return SeenGpus(problem=str(error))
    finally:
        nvml.nvmlShutdown()


def _all(nvml: Any) -> SeenGpus:
    cards: list[SeenCard] = []
    whole: dict[int, Any] = {}
    problems: list[str] = []
    driver = _told(nvml, nvml.nvmlSystemGetDriverVersion)
    with _problem(nvml, problems, ""):
        for index in range(nvml.nvmlDeviceGetCount()):
            with _problem(nvml, problems, f"GPU {index}: "):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                found = _card(nvml, handle, index)
                cards.extend(found)
                if found and not found[0].is_slice:
                    whole[index] = handle
    return SeenGpus(
        cards=tuple(cards),
        driver=None if driver is None else _text(driver),
        problem="; ".join(problems) or None,
        cuda=_told(nvml, nvml.nvmlSystemGetCudaDriverVersion),
        links=tuple(_links(nvml, whole)),
    )


@contextmanager
def _problem(nvml: Any, problems: list[str], where: str) -> Iterator[None]:
    try:
        yield
    except nvml.NVMLError as error:
        problems.append(f"{where}{error}")


def _told(nvml: Any, ask: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """The answer, or None where this driver or card does not give it."""
    try:
        return ask(*args, **named)
    except tuple(getattr(nvml, name) for name in _LOST):
        raise
    except nvml.NVMLError:
        return None


def _card(nvml: Any, handle: Any, index: int) -> list[SeenCard]:
    # A slice does not know its compute capability, nor its power limit; its card does.
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    power = _told(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    energy = _told(nvml, nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    mode = _told(nvml, nvml.nvmlDeviceGetMigMode, handle)
    is_sliced = mode is not None and bool(mode[0])
    return [
        SeenCard(
            index=index,
            uuid=_text(nvml.nvmlDeviceGetUUID(part)),
            name=_text(nvml.nvmlDeviceGetName(part)),
            memory=_memory(nvml, part),
            capability=(major, minor),
            is_slice=is_sliced,
            power_limit_mw=power,
            energy_mj=energy,
            processes=_processes(nvml, part),
        )
        for part in (_slices(nvml, handle) if is_sliced else [handle])
    ]


def _slices(nvml: Any, handle: Any) -> Iterator[Any]:
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError_NotFound:
            continue


def _memory(nvml: Any, handle: Any) -> SeenMemory | None:
    # Drivers before 510 do not know the second version, which tells the reserved part.
    seen = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, handle, version=nvml.nvmlMemory_v2)
    if seen is not None:
        return SeenMemory(seen.total, seen.free, seen.reserved)
    try:
        seen = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:
        return None
    return SeenMemory(seen.total, seen.free, None)


def _processes(nvml: Any, handle: Any) -> tuple[tuple[int, int | None], ...]:
    """Who computes, and who draws: a desktop takes memory too. One row for who does both."""
    used: dict[int, int | None] = {}
    for ask in (
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
        nvml.nvmlDeviceGetComputeRunningProcesses,
    ):
        for process in _told(nvml, ask, handle) or ():
            used[process.pid] = process.usedGpuMemory
    return tuple(sorted(used.items()))


def _links(nvml: Any, handles: dict[int, Any]) -> Iterator[SeenLink]:
    lanes = {index: _lanes(nvml, handle) for index, handle in handles.items()}
    addresses = {index: _address(nvml, handle) for index, handle in handles.items()}
    for first, second in combinations(handles, 2):
        pair = handles[first], handles[second]
        try:
            yield SeenLink(
                first,
                second,
                is_nvlink=_is_nvlink(nvml, *pair),
                lanes=_lanes_between(lanes[first], addresses[second], lanes[second]),
                ancestor=_told(nvml, nvml.nvmlDeviceGetTopologyCommonAncestor, *pair),
            )
        except nvml.NVMLError:
            continue  # one of them is lost by now; the next reading says so


def _is_nvlink(nvml: Any, first: Any, second: Any) -> bool:
    """As vLLM asks it (platforms/cuda.py, is_fully_connected)."""
    status = _told(
        nvml, nvml.nvmlDeviceGetP2PStatus, first, second, nvml.NVML_P2P_CAPS_INDEX_NVLINK
    )
    return bool(status == nvml.NVML_P2P_STATUS_OK)


def _lanes(nvml: Any, handle: Any) -> list[str]:
    """The PCI address at the far end of each NVLink lane that is up: a card's or a switch's."""
    ends = []
    try:
        for lane in range(nvml.NVML_NVLINK_MAX_LINKS):
            if not _told(nvml, nvml.nvmlDeviceGetNvLinkState, handle, lane):
                continue
            end = _told(nvml, nvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, lane)
            ends.append("" if end is None else _text(end.busId))
    except nvml.NVMLError:
        return []
    return ends


def _address(nvml: Any, handle: Any) -> str | None:
    try:
        info = _told(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    except nvml.NVMLError:
        return None
    return None if info is None else _text(info.busId)


def _lanes_between(ends: list[str], address: str | None, others: list[str]) -> int:
    """Lanes that lead straight to the other card; through switches, all that both have."""
    return ends.count(address) if address in ends else min(len(ends), len(others))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
