"""`inhouse devices`: what is shown of machines that are not here, and of this one."""

import json
from dataclasses import replace

import pytest

from serve.cli.devices import tables
from serve.hardware.machine import GpuProcess
from tests.cli.conftest import Inhouse
from tests.fakes.fake_nvml import FakeCard, FakeNvml
from tests.hardware.machines import CPU, machine_of

GIB = 2**30


def test_a_driver_two_busy_cards_and_the_processor() -> None:
    command = "python3 -m vllm.entrypoints.openai.api_server --model /weights/large"
    nvml = FakeNvml(
        (FakeCard(free=9 * GIB, processes=((42, 70 * GIB), (7, None))), FakeCard()),
        bridges={(0, 1): 4},
    )
    machine = machine_of(nvml, owners={42: GpuProcess(42, None, command, "ana")})
    assert list(tables(machine)) == [
        [("driver", "580.65.06, CUDA 13.0")],
        [
            ("GPU 0", "NVIDIA H100 80GB HBM3"),
            ("memory", "9.0 GiB free of 79.5 GiB, besides 512.0 MiB for the driver"),
            ("bandwidth", "3,350 GB/s (data sheet)"),
            (
                "compute",
                "capability 9.0; dense TFLOP/s: FP16 989, FP8 1,979, INT8 1,979 (data sheet)",
            ),
            ("power", "700 W at most"),
            ("reaches", "GPU 1 by NVLink (4 lanes)"),
            ("process", f"42, ana, 70.0 GiB, {command[:48]}…"),
            ("process", "7, not visible from here"),
        ],
        [
            ("GPU 1", "NVIDIA H100 80GB HBM3"),
            ("memory", "79.0 GiB free of 79.5 GiB, besides 512.0 MiB for the driver"),
            ("bandwidth", "3,350 GB/s (data sheet)"),
            (
                "compute",
                "capability 9.0; dense TFLOP/s: FP16 989, FP8 1,979, INT8 1,979 (data sheet)",
            ),
            ("power", "700 W at most"),
            ("reaches", "GPU 0 by NVLink (4 lanes)"),
        ],
        [
            ("CPU", "Big CPU"),
            ("memory", "100.0 GiB free of 120.0 GiB"),
            ("bandwidth", "200 GB/s (measured)"),
            ("compute", "AVX2"),
            ("cores", "2 + 2 on 2 NUMA nodes, 40.0 GiB + 60.0 GiB free"),
        ],
    ]


def test_cards_in_slices_of_unknown_kinds_and_hidden_ones() -> None:
    cards = (FakeCard(slices=(20 * GIB,)), FakeCard(name="NVIDIA Z9"), FakeCard(), FakeCard())
    shown = list(tables(machine_of(FakeNvml(cards), visible="0,1")))
    assert shown[0][1:] == [("hidden", "GPU 2, 3, by CUDA_VISIBLE_DEVICES")]
    assert shown[1][:2] == [
        ("GPU 0", "NVIDIA H100 80GB HBM3, a MIG slice"),
        ("memory", "20.0 GiB free of 20.0 GiB"),
    ]
    assert "reaches" not in dict(shown[1]) and "bandwidth" not in dict(shown[1])
    assert dict(shown[2])["compute"] == "capability 9.0"
    assert "reaches" not in dict(shown[2]), "a card in slices reaches nobody"


def test_memory_that_is_shared_with_the_processor() -> None:
    card = FakeCard(name="NVIDIA GB10", capability=(12, 1), has_memory=False)
    shown = list(tables(machine_of(FakeNvml((card,)))))
    assert dict(shown[1])["memory"].endswith("shared with the processor")


@pytest.mark.parametrize(
    ("nvml", "rows"),
    [
        (FakeNvml(missing="library"), []),
        (
            FakeNvml(missing="driver"),
            [("problem", "the NVIDIA driver cannot be asked: Driver Not Loaded")],
        ),
        (
            FakeNvml(driver="570.1", cuda=12080),
            [
                ("driver", "570.1, CUDA 12.8"),
                ("problem", "the NVIDIA driver 570.1 is too old: CUDA 13 needs 580 or newer"),
            ],
        ),
    ],
)
def test_without_a_card_the_driver_is_told_if_there_is_one(
    nvml: FakeNvml, rows: list[tuple[str, str]]
) -> None:
    machine = replace(machine_of(nvml), cpu=replace(CPU, nodes=((0, 1),), bandwidth=None))
    *driver, processor = tables(machine)
    assert driver == ([rows] if rows else [])
    assert dict(processor)["cores"] == "4" and "bandwidth" not in dict(processor)


def test_the_kinds_of_cards_that_are_known(inhouse: Inhouse) -> None:
    lines = inhouse("devices", "--known").out.splitlines()
    assert lines[0].split() == ["CARD", "MEMORY", "GB/S", "FP16", "FP8", "FP4", "NVLINK"]
    (row,) = (line for line in lines if line.startswith("H100 SXM"))
    assert row.split() == ["H100", "SXM", "80GB", "79.2", "GiB", "3,350", "989", "1,979", "900"]
    assert max(map(len, lines)) <= 80
    records = json.loads(inhouse("devices", "--known", "--json").out)
    assert len(records) == len(lines) - 2
    assert all(record["source"] and record["flops"]["fp16"] for record in records)


def test_this_machine(inhouse: Inhouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    shown = inhouse("devices")
    assert shown.code == 0 and "\nCPU" in f"\n{shown.out}" and "GPU 0" not in shown.out
    assert "GB/s (measured)" in shown.out
    record = json.loads(inhouse("devices", "--json").out)
    assert record["device"] == "cpu" and record["cpu"]["bandwidth"] > 0
    assert record["gpus"] == []
