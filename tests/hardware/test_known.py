"""The table of cards: whole, plausible, and found by the names that drivers and people use."""

import pytest

from serve.hardware import known_gpus
from serve.hardware.known import find_known
from serve.hardware.machine import KnownGpu

GIB = 2**30
ALL = known_gpus()
# Names as drivers report them, with total MiB as nvidia-smi shows it.
DRIVERS_NAMES = [
    ("NVIDIA H100 80GB HBM3", 81559, "H100 SXM 80GB"),
    ("NVIDIA H100 PCIe", 81559, "H100 PCIe 80GB"),
    ("NVIDIA H100 NVL", 95830, "H100 NVL 94GB"),
    ("NVIDIA H200", 143771, "H200 SXM 141GB"),
    ("NVIDIA H200 NVL", 143771, "H200 NVL 141GB"),
    ("NVIDIA H20", 97871, "H20 96GB"),
    ("NVIDIA H20-3e", 143771, "H20 141GB"),
    ("NVIDIA GH200 480GB", 97871, "GH200 96GB"),
    ("NVIDIA GH200 144G HBM3e", 146831, "GH200 144GB"),
    ("NVIDIA B200", 183359, "B200 180GB"),
    ("NVIDIA GB200", 189471, "GB200 186GB"),
    ("NVIDIA B300 SXM6 AC", 275040, "B300 288GB"),
    ("NVIDIA A100-SXM4-80GB", 81920, "A100 SXM 80GB"),
    ("NVIDIA A100-SXM4-40GB", 40960, "A100 SXM 40GB"),
    ("NVIDIA A100 80GB PCIe", 81920, "A100 PCIe 80GB"),
    ("NVIDIA A100-PCIE-40GB", 40960, "A100 PCIe 40GB"),
    ("NVIDIA A800-SXM4-80GB", 81920, "A800 SXM 80GB"),
    ("NVIDIA A30", 24576, "A30 24GB"),
    ("NVIDIA A40", 46068, "A40 48GB"),
    ("NVIDIA A10", 23028, "A10 24GB"),
    ("NVIDIA A10G", 23028, "A10G 24GB"),
    ("NVIDIA L40S", 46068, "L40S 48GB"),
    ("NVIDIA L4", 23034, "L4 24GB"),
    ("Tesla T4", 15360, "T4 16GB"),
    ("Tesla V100-SXM2-32GB", 32768, "V100 SXM2 32GB"),
    ("Tesla V100-PCIE-16GB", 16384, "V100 PCIe 16GB"),
    ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97887, "RTX PRO 6000 96GB"),
    (
        "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        97887,
        "RTX PRO 6000 Max-Q 96GB",
    ),
    (
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        97887,
        "RTX PRO 6000 Server 96GB",
    ),
    ("NVIDIA RTX 6000 Ada Generation", 49140, "RTX 6000 Ada 48GB"),
    ("Quadro RTX 6000", 24576, "Quadro RTX 6000 24GB"),
    ("NVIDIA RTX A6000", 49140, "RTX A6000 48GB"),
    ("NVIDIA GeForce RTX 5090", 32607, "RTX 5090 32GB"),
    ("NVIDIA GeForce RTX 4090", 24564, "RTX 4090 24GB"),
    ("NVIDIA GeForce RTX 4090 D", 24564, "RTX 4090 D 24GB"),
    ("NVIDIA GeForce RTX 4070 Ti SUPER", 16376, "RTX 4070 Ti SUPER 16GB"),
    ("NVIDIA GeForce RTX 4060 Ti", 16380, "RTX 4060 Ti 16GB"),
    ("NVIDIA GeForce RTX 4060 Ti", 8188, "RTX 4060 Ti 8GB"),
    ("NVIDIA GeForce RTX 3090", 24576, "RTX 3090 24GB"),
    ("NVIDIA GeForce RTX 3090 Ti", 24564, "RTX 3090 Ti 24GB"),
    ("NVIDIA GeForce RTX 3080", 10240, "RTX 3080 10GB"),
    ("NVIDIA GeForce RTX 3080", 12288, "RTX 3080 12GB"),
    ("NVIDIA GeForce RTX 2080 Ti", 11264, "RTX 2080 Ti 11GB"),
    ("NVIDIA TITAN RTX", 24576, "Titan RTX 24GB"),
    ("NVIDIA GB10", 124610, "GB10 128GB"),
    ("Orin (nvgpu)", 62840, "Jetson AGX Orin 64GB"),
    ("NVIDIA Thor", 125772, "Jetson AGX Thor 128GB"),
]


@pytest.mark.parametrize(("name", "mib", "kind"), DRIVERS_NAMES)
def test_a_real_card_has_its_data_sheet(name: str, mib: int, kind: str) -> None:
    found = find_known(name, mib * 2**20)
    assert found is not None and found.name == kind


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16),
        ("NVIDIA GeForce RTX 4090", 48),  # rebuilt with twice the memory: other figures too
        ("NVIDIA GeForce GTX 1080 Ti", 11),
        ("AMD Instinct MI300X", 192),
        ("", 24),
    ],
)
def test_what_is_not_in_the_table_has_none(name: str, gib: int) -> None:
    assert find_known(name, gib * GIB) is None


def test_the_table_is_large_enough_and_names_each_kind_once() -> None:
    assert len(ALL) >= 45
    assert len({gpu.name for gpu in ALL}) == len(ALL)


@pytest.mark.parametrize("gpu", ALL, ids=lambda gpu: gpu.name)
def test_a_row_is_plausible(gpu: KnownGpu) -> None:
    sold_gb = int(gpu.name.split()[-1].removesuffix("GB"))
    # GB of 10^9 or of 2^30 are sold; CUDA sees a little less (ECC takes a sixteenth).
    assert 0.85 * sold_gb * 1e9 < gpu.memory_bytes <= sold_gb * GIB
    # All of the memory is read in a few to 500 ms by any card worth a plan.
    assert 0.004 < gpu.memory_bytes / gpu.bandwidth < 0.6
    figures = dict(gpu.flops)
    assert figures and gpu.flops_of("fp16") and gpu.flops_of("fp3") is None
    assert ("fp8" in figures) == (gpu.compute_capability >= (8, 9)), "FP8 came with Ada and Hopper"
    assert ("fp4" in figures) == (gpu.compute_capability >= (10, 0)), "FP4 came with Blackwell"
    if "fp8" in figures:
        assert figures["fp8"] == pytest.approx(2 * figures["fp16"], rel=0.02)
    if "fp4" in figures:
        assert figures["fp4"] >= 1.9 * figures["fp8"]
    assert not (gpu.bridged and not gpu.link_bandwidth)
    assert gpu.source


@pytest.mark.parametrize("gpu", ALL, ids=lambda gpu: gpu.name)
def test_every_kind_is_found_by_the_name_that_it_is_shown_with(gpu: KnownGpu) -> None:
    assert known_gpus(gpu.name) == (gpu,)


def test_a_name_that_several_share_gives_all_of_them() -> None:
    assert [gpu.name for gpu in known_gpus("A100")] == ["A100 SXM 80GB", "A100 SXM 40GB"]
    assert [gpu.name for gpu in known_gpus("RTX 3080")] == ["RTX 3080 10GB", "RTX 3080 12GB"]
    assert known_gpus("nothing like it") == ()
