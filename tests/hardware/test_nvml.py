"""Cards as the driver tells them, whole and broken."""

import pytest

from serve.hardware import Gpu
from serve.hardware.nvml import SeenGpus, interpret_gpus, read_gpus
from tests.fakes.fake_nvml import FakeCard, FakeNvml

GIB = 2**30


def test_a_card_becomes_a_gpu_without_the_drivers_reserve() -> None:
    nvml = FakeNvml((FakeCard(),))
    seen = read_gpus(nvml)
    assert (seen.driver, seen.problem) == ("580.65.06", None)
    assert interpret_gpus(seen) == (
        Gpu(
            index=0,
            uuid="GPU-0",
            name="NVIDIA H100 80GB HBM3",
            total_bytes=80 * GIB - GIB // 2,
            free_bytes=79 * GIB,
            compute_capability=(9, 0),
        ),
    )
    assert nvml.sessions == 0


def test_no_library_is_no_driver_and_no_problem() -> None:
    assert read_gpus(FakeNvml(missing="library")) == SeenGpus()


def test_a_driver_that_is_not_loaded_is_a_problem() -> None:
    seen = read_gpus(FakeNvml(missing="driver"))
    assert seen.cards == ()
    assert seen.problem == "the NVIDIA driver cannot be asked: Driver Not Loaded"


def test_a_lost_card_is_told_and_the_others_stay() -> None:
    nvml = FakeNvml((FakeCard(is_lost=True), FakeCard(name="NVIDIA L4")))
    seen = read_gpus(nvml)
    assert [(gpu.index, gpu.name) for gpu in interpret_gpus(seen)] == [(1, "NVIDIA L4")]
    assert seen.problem == "GPU 0: GPU is lost"
    assert nvml.sessions == 0


def test_mig_slices_stand_for_their_card() -> None:
    nvml = FakeNvml((FakeCard(slices=(20 * GIB, 10 * GIB)), FakeCard(slices=())))
    gpus = interpret_gpus(read_gpus(nvml))
    assert [(gpu.index, gpu.uuid, gpu.total_bytes) for gpu in gpus] == [
        (0, "MIG-0-0", 20 * GIB),
        (0, "MIG-0-1", 10 * GIB),
    ]
    assert all(gpu.is_slice and gpu.compute_capability == (9, 0) for gpu in gpus)


def test_a_card_too_old_for_mig_is_whole() -> None:
    (gpu,) = interpret_gpus(read_gpus(FakeNvml((FakeCard(knows_mig=False),))))
    assert not gpu.is_slice


@pytest.mark.parametrize("driver", ["570.1", b"570.1"])
def test_old_bindings_answer_in_bytes(driver: str | bytes) -> None:
    assert read_gpus(FakeNvml(driver=driver)).driver == "570.1"
