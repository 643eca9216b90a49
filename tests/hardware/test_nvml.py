"""Cards as the driver tells them: whole, sliced, busy, joined, broken, and told by halves."""

import pytest

from serve.hardware import Gpu, known_gpus
from serve.hardware.machine import GpuProcess, Link
from serve.hardware.nvml import SeenGpus, read_gpus
from tests.fakes.fake_nvml import FakeCard, FakeNvml
from tests.hardware.machines import CPU, machine_of

GIB = 2**30
# What no card must be lost for: everything but its handle, name, UUID, capability and memory.
OPTIONAL = frozenset(
    {
        "nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion",
        "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetMigMode", "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses",
        "nvmlDeviceGetP2PStatus", "nvmlDeviceGetTopologyCommonAncestor",
        "nvmlDeviceGetNvLinkState", "nvmlDeviceGetPciInfo",
    }
)  # fmt: skip


def test_a_card_becomes_a_gpu_without_the_drivers_reserve() -> None:
    nvml = FakeNvml((FakeCard(),))
    machine = machine_of(nvml)
    assert (machine.driver, machine.cuda, machine.gpu_problem) == ("580.65.06", (13, 0), None)
    assert machine.gpus == (
        Gpu(
            index=0,
            uuid="GPU-0",
            name="NVIDIA H100 80GB HBM3",
            total_bytes=80 * GIB - GIB // 2,
            free_bytes=79 * GIB,
            compute_capability=(9, 0),
            reserved_bytes=GIB // 2,
            power_limit_w=700.0,
            energy_j=5000.0,
            known=known_gpus("H100 SXM")[0],
        ),
    )
    assert (machine.device, machine.links, nvml.sessions) == ("cuda", (), 0)


@pytest.mark.parametrize("count", range(1, 9))
def test_one_to_eight_cards_and_all_their_pairs(count: int) -> None:
    machine = machine_of(FakeNvml((FakeCard(),) * count, switch_lanes=18))
    assert [gpu.index for gpu in machine.gpus] == list(range(count))
    assert len(machine.links) == count * (count - 1) // 2
    assert {(link.kind, link.lanes) for link in machine.links} <= {("NVLINK", 18)}


def test_nvlink_pairs_and_what_lies_between_the_others() -> None:
    machine = machine_of(
        FakeNvml(
            (FakeCard(name="NVIDIA GeForce RTX 3090"),) * 4,
            bridges={(0, 1): 4, (2, 3): 4},
            ancestors={(0, 2): 50, (0, 3): 40, (1, 2): 20, (1, 3): 10},
        )
    )
    assert machine.links == (
        Link(0, 1, "NVLINK", 4),
        Link(0, 2, "SYS"),
        Link(0, 3, "NODE"),
        Link(1, 2, "PXB"),
        Link(1, 3, "PIX"),
        Link(2, 3, "NVLINK", 4),
    )


def test_busy_cards_tell_who_is_on_them() -> None:
    owners = {7: GpuProcess(7, None, "python3 train.py", "ana")}
    card = FakeCard(
        free=GIB, processes=((7, 70 * GIB), (99, None)), drawing=((7, 70 * GIB), (5, GIB))
    )
    (gpu,) = machine_of(FakeNvml((card,)), owners=owners).gpus
    assert gpu.free_bytes == GIB
    assert gpu.processes == (
        GpuProcess(5, GIB, None, None),
        GpuProcess(7, 70 * GIB, "python3 train.py", "ana"),
        GpuProcess(99, None, None, None),
    )


def test_no_library_is_no_driver_and_no_problem() -> None:
    assert read_gpus(FakeNvml(missing="library")) == SeenGpus()
    machine = machine_of(FakeNvml(missing="library"))
    assert (machine.device, machine.driver, machine.gpu_problem) == ("cpu", None, None)


def test_a_driver_that_is_not_loaded_is_a_problem() -> None:
    machine = machine_of(FakeNvml(missing="driver"))
    assert machine.gpus == ()
    assert machine.gpu_problem == "the NVIDIA driver cannot be asked: Driver Not Loaded"


@pytest.mark.parametrize("driver", ["570.172.08", b"570.172.08"])
def test_a_driver_that_is_too_old_says_which_is_needed(driver: str | bytes) -> None:
    machine = machine_of(FakeNvml((FakeCard(), FakeCard(is_lost=True)), driver=driver, cuda=12080))
    assert (machine.driver, machine.cuda, len(machine.gpus)) == ("570.172.08", (12, 8), 1)
    assert machine.gpu_problem == (
        "the NVIDIA driver 570.172.08 is too old: CUDA 13 needs 580 or newer; GPU 1: GPU is lost"
    )


@pytest.mark.parametrize("driver", ["580.65.06", "595.10", "R580", ""])
def test_a_driver_that_is_new_or_odd_is_no_problem(driver: str) -> None:
    assert machine_of(FakeNvml((FakeCard(),), driver=driver)).gpu_problem is None


def test_a_lost_card_is_told_and_the_others_stay() -> None:
    nvml = FakeNvml((FakeCard(is_lost=True), FakeCard(name="NVIDIA L4")))
    machine = machine_of(nvml)
    assert [(gpu.index, gpu.name) for gpu in machine.gpus] == [(1, "NVIDIA L4")]
    assert machine.gpu_problem == "GPU 0: GPU is lost"
    assert nvml.sessions == 0


@pytest.mark.parametrize(
    "lost_at",
    [
        "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetMigMode", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses",
    ],
)  # fmt: skip
def test_a_card_that_falls_off_the_bus_while_it_is_read(lost_at: str) -> None:
    nvml = FakeNvml((FakeCard(lost_at=lost_at), FakeCard()), switch_lanes=18)
    machine = machine_of(nvml)
    assert [gpu.index for gpu in machine.gpus] == [1]
    assert (machine.gpu_problem, machine.links) == ("GPU 0: GPU is lost", ())
    assert nvml.sessions == 0


@pytest.mark.parametrize(
    "lost_at", ["nvmlDeviceGetPciInfo", "nvmlDeviceGetNvLinkState", "nvmlDeviceGetP2PStatus"]
)
def test_a_card_that_falls_off_while_links_are_read_loses_only_links(lost_at: str) -> None:
    nvml = FakeNvml((FakeCard(lost_at=lost_at), FakeCard(), FakeCard()), switch_lanes=18)
    machine = machine_of(nvml)
    assert len(machine.gpus) == 3
    assert Link(1, 2, "NVLINK", 18) in machine.links
    assert nvml.sessions == 0


def test_a_driver_that_cannot_count_is_a_problem() -> None:
    nvml = FakeNvml((FakeCard(),), unknown=frozenset({"nvmlDeviceGetCount"}))
    assert machine_of(nvml).gpu_problem == "Function Not Found"
    assert nvml.sessions == 0


@pytest.mark.parametrize("function", sorted(OPTIONAL))
def test_an_old_driver_that_lacks_a_function_loses_no_card(function: str) -> None:
    machine = machine_of(FakeNvml((FakeCard(),) * 2, unknown=frozenset({function})))
    assert [gpu.name for gpu in machine.gpus] == ["NVIDIA H100 80GB HBM3"] * 2
    assert machine.gpu_problem is None


def test_a_card_that_supports_none_of_them_is_still_there() -> None:
    card = FakeCard(unsupported=OPTIONAL)
    machine = machine_of(FakeNvml((card, card), unknown=OPTIONAL))
    (gpu, _) = machine.gpus
    assert (gpu.total_bytes, gpu.free_bytes, gpu.reserved_bytes) == (80 * GIB, 79 * GIB, 0)
    assert (gpu.power_limit_w, gpu.processes, machine.links) == (None, (), ())
    assert (machine.driver, machine.cuda) == (None, None)


def test_a_card_without_memory_of_its_own_has_the_processors() -> None:
    card = FakeCard(name="NVIDIA GB10", capability=(12, 1), has_memory=False)
    (gpu,) = machine_of(FakeNvml((card,))).gpus
    assert (gpu.total_bytes, gpu.free_bytes) == (CPU.total_bytes, CPU.free_bytes)
    assert gpu.known is not None and gpu.known.is_unified


def test_mig_slices_stand_for_their_card() -> None:
    nvml = FakeNvml(
        (FakeCard(slices=(20 * GIB, 10 * GIB)), FakeCard(slices=()), FakeCard()), switch_lanes=18
    )
    machine = machine_of(nvml)
    assert [(gpu.index, gpu.uuid, gpu.total_bytes, gpu.is_slice) for gpu in machine.gpus] == [
        (0, "MIG-0-0", 20 * GIB, True),
        (0, "MIG-0-1", 10 * GIB, True),
        (2, "GPU-2", 80 * GIB - GIB // 2, False),
    ]
    assert {gpu.compute_capability for gpu in machine.gpus} == {(9, 0)}
    assert machine.links == (), "cards in slices reach nobody"


def test_a_card_too_old_for_mig_is_whole() -> None:
    (gpu,) = machine_of(FakeNvml((FakeCard(knows_mig=False),))).gpus
    assert not gpu.is_slice


def test_a_kind_of_card_that_nobody_knows_is_a_card() -> None:
    (gpu,) = machine_of(FakeNvml((FakeCard(name="NVIDIA Z9000"),))).gpus
    assert gpu.known is None
