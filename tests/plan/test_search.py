"""Where an engine could run: which cards, cut how, in which order."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from serve.hardware import Gpu, Machine, imagine
from serve.hardware.machine import Link
from serve.plan import Wishes
from serve.plan.islands import islands
from serve.plan.search import Place, alike, places
from tests.plan.known import (
    CHATGLM_9B,
    DEEPSEEK_V2_LITE,
    LLAMA_8B,
    QWEN3_8B,
    QWEN3_235B_FP8,
    QWEN25_7B,
    SMOLLM2,
    card,
    cpu,
    shape,
)

ANY = Wishes()


def machine(*gpus: Gpu, nvlinks: Iterable[tuple[int, int]] = ()) -> Machine:
    links = tuple(Link(first, second, "NVLINK") for first, second in nvlinks)
    return Machine(cpu(), gpus, links=links)


def indices(place: Place) -> list[int]:
    return [each.index for each in place.cards]


def cuts(found: Iterable[Place]) -> list[tuple[int, int, list[int]]]:
    return [(each.parallel.tensor, each.parallel.pipeline, indices(each)) for each in found]


FOUR = [card(n) for n in range(4)]
PAIRS = machine(*FOUR, nvlinks=[(0, 1), (2, 3)])


def test_cards_without_nvlink_are_one_island() -> None:
    assert [len(island) for island in islands(tuple(FOUR), machine(*FOUR))] == [4]


def test_nvlink_makes_islands() -> None:
    found = islands(tuple(FOUR), PAIRS)
    assert [[each.index for each in island] for island in found] == [[0, 1], [2, 3]]


def test_a_chain_of_links_is_one_island() -> None:
    chained = machine(*FOUR, nvlinks=[(0, 1), (2, 3), (1, 2)])
    assert [len(island) for island in islands(tuple(FOUR), chained)] == [4]


def test_links_of_other_cards_do_not_count() -> None:
    assert len(islands(tuple(FOUR[:1]), PAIRS)) == 1


def test_fewest_cards_first_and_tensor_before_pipeline() -> None:
    found = cuts(places(shape(LLAMA_8B), machine(*FOUR), ANY))
    assert found == [
        (1, 1, [0]), (2, 1, [0, 1]), (1, 2, [0, 1]),
        (4, 1, [0, 1, 2, 3]), (2, 2, [0, 1, 2, 3]), (1, 4, [0, 1, 2, 3]),
        (1, 3, [0, 1, 2]),
    ]  # fmt: skip


def test_tensor_ranks_stay_on_an_island() -> None:
    found = list(places(shape(LLAMA_8B), PAIRS, ANY))
    of_four = [each for each in found if len(each.cards) == 4]
    assert cuts(of_four) == [
        (2, 2, [0, 1, 2, 3]), (1, 4, [0, 1, 2, 3]), (4, 1, [0, 1, 2, 3]),
    ]  # fmt: skip
    assert [each.is_across for each in of_four] == [False, False, True]


def test_the_freest_island_is_taken() -> None:
    busy = machine(card(0, used_gib=10), card(1), card(2), card(3), nvlinks=[(0, 1), (2, 3)])
    pair = next(each for each in places(shape(LLAMA_8B), busy, ANY) if len(each.cards) == 2)
    assert indices(pair) == [2, 3]


def test_ranks_of_a_stage_are_side_by_side() -> None:
    crossed = machine(*FOUR, nvlinks=[(0, 3), (1, 2)])
    four = next(each for each in places(shape(LLAMA_8B), crossed, ANY) if len(each.cards) == 4)
    assert cuts([four]) == [(2, 2, [0, 3, 1, 2])]


def test_cards_of_one_kind_come_before_a_mixture() -> None:
    mixed = machine(card(0, 141, name="big"), card(1), card(2))
    pairs = [each for each in places(shape(LLAMA_8B), mixed, ANY) if len(each.cards) == 2]
    assert indices(pairs[0]) == [1, 2]
    assert [0, 1] in [indices(each) for each in pairs]


def test_slices_are_alone() -> None:
    slices = [card(0, 20, is_slice=True), replace(card(0, 20, is_slice=True), uuid="MIG-1")]
    assert [len(each.cards) for each in places(shape(LLAMA_8B), machine(*slices), ANY)] == [1]


def test_a_whole_card_beside_slices() -> None:
    both = machine(card(0, 20, is_slice=True), card(1), card(2))
    found = list(places(shape(LLAMA_8B), both, ANY))
    assert [0, 1] not in [indices(each) for each in found]
    assert [1, 2] in [indices(each) for each in found]


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        pytest.param(QWEN25_7B, [1, 2, 4], id="28 heads"),
        pytest.param(SMOLLM2, [1, 3], id="9 heads"),
        pytest.param(CHATGLM_9B, [1, 2, 4, 8], id="2 KV heads are repeated"),
        pytest.param(QWEN3_8B | {"num_attention_heads": 48, "num_key_value_heads": 6},
                     [1, 2], id="6 KV heads, 151936 rows"),
        pytest.param(QWEN3_235B_FP8, [1, 2, 4], id="1536 / 8 cuts blocks of 128"),
        pytest.param(QWEN3_235B_FP8 | {"quantization_config": None}, [1, 2, 4, 8], id="bf16"),
        pytest.param(DEEPSEEK_V2_LITE, [1, 2, 4, 8], id="MLA"),
    ],
)  # fmt: skip
def test_into_how_many_tensor_ranks_a_model_is_cut(
    config: dict[str, Any], sizes: list[int]
) -> None:
    eight = machine(*(card(n) for n in range(8)))
    wishes = Wishes(pipeline_parallel=1, is_expert_parallel=False, engine_version="0.28")
    found = places(shape(config), eight, wishes)
    assert sorted(each.parallel.tensor for each in found) == sizes


def test_experts_that_cannot_be_sliced_are_spread_whole() -> None:
    eight = machine(*(card(n) for n in range(8)))
    for version, is_expert in (("0.28", True), ("0.32", False)):
        wishes = Wishes(tensor_parallel=8, pipeline_parallel=1, engine_version=version)
        found = places(shape(QWEN3_235B_FP8), eight, wishes)
        assert [each.parallel.is_expert for each in found] == [is_expert]


def test_wishes_narrow_the_search() -> None:
    four = machine(*FOUR)
    found = cuts(places(shape(LLAMA_8B), four, Wishes(tensor_parallel=2)))
    assert found == [(2, 1, [0, 1]), (2, 2, [0, 1, 2, 3])]
    found = cuts(places(shape(LLAMA_8B), four, Wishes(pipeline_parallel=3)))
    assert found == [(1, 3, [0, 1, 2])]


def test_data_parallel_takes_as_many_cards_more() -> None:
    found = list(places(shape(LLAMA_8B), machine(*FOUR), Wishes(data_parallel=2)))
    assert [(len(each.cards), each.parallel.data) for each in found] == [(2, 2), (4, 2), (4, 2)]


def test_a_large_machine_is_searched_in_powers_of_two() -> None:
    found = places(shape(LLAMA_8B), imagine("72x H100"), ANY)
    sizes = {len(each.cards) for each in found}
    assert sizes == {1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64} - {
        size for size in (64,) if size > 2 * len(shape(LLAMA_8B).layers)
    }


def test_sets_of_cards_for_more_engines_share_none() -> None:
    pair = next(each for each in places(shape(LLAMA_8B), PAIRS, ANY) if len(each.cards) == 2)
    sets = alike(PAIRS, pair)
    assert sorted(each.index for cards in sets for each in cards) == [0, 1, 2, 3]
