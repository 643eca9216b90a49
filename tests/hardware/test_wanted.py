"""Machines that one does not have, and what is no machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import SettingsError
from serve.hardware import imagine, known_gpus

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("RTX 4090", ["RTX 4090 24GB"]),
        ("rtx4090", ["RTX 4090 24GB"]),
        ("4090", ["RTX 4090 24GB"]),
        ("4x RTX 4090", ["RTX 4090 24GB"] * 4),
        ("4X4090", ["RTX 4090 24GB"] * 4),
        ("2xH100", ["H100 SXM 80GB"] * 2),
        ("2×H100", ["H100 SXM 80GB"] * 2),
        ("8 x A100-80GB", ["A100 SXM 80GB"] * 8),
        ("A100x8", ["A100 SXM 80GB"] * 8),
        ("RTX A6000 x 2", ["RTX A6000 48GB"] * 2),
        ("A100 40 GB", ["A100 SXM 40GB"]),
        ("A100 80G PCIe", ["A100 PCIe 80GB"]),
        ("H100 80GB HBM3", ["H100 SXM 80GB"]),
        ("h100nvl", ["H100 NVL 94GB"]),
        ("RTX 4070TiSuper", ["RTX 4070 Ti SUPER 16GB"]),
        ("NVIDIA GeForce RTX 3090 Ti", ["RTX 3090 Ti 24GB"]),
        ("RTX 6000", ["RTX 6000 Ada 48GB"]),
        ("RTX PRO 6000", ["RTX PRO 6000 96GB"]),
        ("DGX Spark", ["GB10 128GB"]),
        ("1x H100 + 2x L40S", ["H100 SXM 80GB", "L40S 48GB", "L40S 48GB"]),
        ("T4, L4", ["T4 16GB", "L4 24GB"]),
        ("2x79.2GiB", ["a GPU of 79.2 GiB"] * 2),
    ],
)
def test_cards_by_name_and_number(text: str, names: list[str]) -> None:
    machine = imagine(text)
    assert [gpu.name for gpu in machine.gpus] == names
    assert machine.is_imagined and machine.device == "cuda"
    for index, gpu in enumerate(machine.gpus):
        assert (gpu.index, gpu.free_bytes, gpu.reserved_bytes) == (index, gpu.total_bytes, 0)
    assert len({gpu.uuid for gpu in machine.gpus}) == len(names)


def test_a_card_by_its_memory_alone_has_no_data_sheet() -> None:
    (gpu,) = imagine("79.18GiB").gpus
    assert (gpu.total_bytes, gpu.known) == (int(79.18 * GIB), None)
    assert gpu.compute_capability >= (8, 9), "fp8 may be planned for it"


def test_a_named_card_has_the_figures_of_its_kind() -> None:
    (gpu,) = imagine("L4").gpus
    assert gpu.known is known_gpus("L4")[0]
    assert (gpu.total_bytes, gpu.compute_capability) == (gpu.known.memory_bytes, (8, 9))


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("3x H100", {(0, 1), (0, 2), (1, 2)}),
        ("4x RTX 3090", {(0, 1), (2, 3)}),
        ("5x H200 NVL", {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}),
        ("2x RTX 4090", set()),
        ("1x H100 + 1x H200", set()),
        ("2x 80GiB", set()),
        ("1x H100", set()),
    ],
)
def test_nvlink_where_the_kind_has_it(text: str, joined: set[tuple[int, int]]) -> None:
    machine = imagine(text)
    assert len(machine.links) == len(machine.gpus) * (len(machine.gpus) - 1) // 2
    nvlinks = {(link.first, link.second) for link in machine.links if link.kind == "NVLINK"}
    assert nvlinks == joined


@pytest.mark.parametrize(
    ("text", "problem", "suggestion"),
    [
        ("4x RTX 4990", "no such card is known: 'RTX 4990'", "RTX 4090 24GB"),
        ("H1000", "no such card is known: 'H1000'", "H100 SXM 80GB"),
        ("H100 40GB", "no such card is known: 'H100 40GB'", "H100 SXM 80GB"),
        ("RTX 4090 Laptop", "no such card is known: 'RTX 4090 Laptop'", "RTX 4090"),
        ("0x H100", "expected 1 to 72 cards: '0x H100'", "4x RTX 4090"),
        ("-1x H100", "expected 1 to 72 cards: '-1x H100'", "4x RTX 4090"),
        ("1000x H100", "expected 1 to 72 cards: '1000x H100'", "4x RTX 4090"),
        (f"{'9' * 5000}x H100", "expected 1 to 72 cards", "4x RTX 4090"),
        ("40x L4 + 40x L4", "80 cards are more than one machine has", "4x RTX 4090"),
        ("", "expected cards, as in '4x RTX 4090'", "4x RTX 4090"),
        ("4x", "expected cards", "4x RTX 4090"),
        ("2x H100 +", "expected cards", "4x RTX 4090"),
        ("24", "no card has 24 B: '24'", "79.2GiB"),
        ("0GiB", "no card has 0 B", "79.2GiB"),
        ("99TiB", "no card has 99.0 TiB", "79.2GiB"),
        (f"{'9' * 30}GiB", "expected something like", "79.2GiB"),
        ("-5GiB", "no such card is known", "4x RTX 4090"),
        ("٣x H100", "no such card is known", ""),
    ],
)
def test_what_is_no_machine_is_refused_with_what_would_be(
    text: str, problem: str, suggestion: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        imagine(text)
    assert (refused.value.place, refused.value.key) == ("plan", "gpus")
    assert refused.value.problem.startswith(problem)
    assert suggestion in (refused.value.suggestion or "")


@given(st.text(max_size=60) | st.from_regex(r"[0-9]{0,4} ?x? ?[A-Z]{0,3} ?[0-9.]{0,6}(GiB|Ti)?"))
def test_any_text_is_a_machine_or_refused(text: str) -> None:
    try:
        machine = imagine(text)
    except SettingsError:
        return
    assert 1 <= len(machine.gpus) <= 72
    assert all(GIB <= gpu.total_bytes <= 1024 * GIB for gpu in machine.gpus)
