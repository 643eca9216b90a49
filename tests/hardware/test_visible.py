"""CUDA_VISIBLE_DEVICES, as CUDA reads it."""

from dataclasses import replace

import pytest

from serve.hardware.visible import visible_gpus
from tests.fakes.fake_nvml import FakeCard, FakeNvml
from tests.hardware.machines import machine_of

GIB = 2**30
FOUR = tuple(
    replace(gpu, uuid=uuid)
    for gpu, uuid in zip(
        machine_of(FakeNvml((FakeCard(),) * 4)).gpus,
        ("GPU-aa10-1", "GPU-aa11-2", "GPU-bb20-3", "GPU-cc30-4"),
        strict=True,
    )
)


@pytest.mark.parametrize(
    ("names", "indices"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("0", [0]),
        ("2,0", [0, 2]),
        (" 1 , 3 ", [1, 3]),
        ("1,-1,3", [1]),
        ("0,9,1", [0]),
        ("0,,1", [0]),
        ("GPU-bb20-3", [2]),
        ("GPU-bb", [2]),
        ("GPU-aa", []),
        ("GPU-aa11,GPU-c", [1, 3]),
        ("GPU-nobody,GPU-cc", []),
        ("GPU-bb,0,GPU-cc", [2]),
        ("0,GPU-bb,1", [0]),
        ("GPU-aa10,GPU-bb,GPU-aa10-1", []),
        ("MIG-aa10", []),
        ("0,0", []),
        ("2,0,+2", []),
        ("1gpu,3ampere", [1, 3]),
        ("1.5", [1]),
        ("all", []),
        ("NoDevFiles", []),
        ("bb20", []),
        ("٣", []),
        ("99999999999999999999", []),
    ],
)
def test_the_cards_that_it_leaves(names: str | None, indices: list[int]) -> None:
    assert [gpu.index for gpu in visible_gpus(FOUR, names)] == indices


def test_slices_by_their_own_name_or_all_by_their_cards() -> None:
    gpus = machine_of(FakeNvml((FakeCard(slices=(20 * GIB, 10 * GIB)), FakeCard()))).gpus
    assert [gpu.uuid for gpu in visible_gpus(gpus, "MIG-0-1")] == ["MIG-0-1"]
    assert [gpu.uuid for gpu in visible_gpus(gpus, "0")] == ["MIG-0-0", "MIG-0-1"]
    assert [gpu.uuid for gpu in visible_gpus(gpus, "MIG-0-1,MIG-0-0")] == ["MIG-0-0", "MIG-0-1"]


def test_a_machine_says_which_cards_are_hidden_and_keeps_no_link_to_them() -> None:
    nvml = FakeNvml((FakeCard(),) * 4, switch_lanes=18)
    machine = machine_of(nvml, visible="1,3")
    assert [gpu.index for gpu in machine.gpus] == [1, 3]
    assert machine.hidden == (0, 2)
    assert [(link.first, link.second) for link in machine.links] == [(1, 3)]


def test_with_no_card_left_engines_run_on_the_processor() -> None:
    machine = machine_of(FakeNvml((FakeCard(),)), visible="-1")
    assert (machine.device, machine.hidden) == ("cpu", (0,))
