"""The whole sum: what goes into it, what replaces it, and which device decides."""

from dataclasses import replace
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.geometry import weights_per_stage
from serve.hardware import imagine
from serve.plan.estimate import Ask, evaluate, evaluate_cpu
from serve.plan.kv import pool
from serve.plan.overhead import outside_bytes
from serve.plan.plan import Estimate
from serve.profiles import Profile, ProfileKey
from serve.shape import Parallel
from tests.plan import known
from tests.plan.kv_models import layout

GIB = 2**30
LLAMA = known.shape(known.LLAMA_8B)
SIXTEEN_K = layout(context_tokens=16384)
KEY = ProfileKey("00", "H100", "0.32", 1, 1, 1, 8192, 1024, "auto", False)


def profile(**measured: Any) -> Profile:
    facts: dict[str, Any] = {
        "weights_bytes": None, "activation_bytes": None, "graph_bytes": None, "other_bytes": None,
        "budget_bytes": None, "available_kv_bytes": None, "kv_blocks": None, "block_tokens": None,
        "kv_tokens": None, **measured,
    }  # fmt: skip
    return Profile(key=KEY, measured_at=0.0, model="llama", **facts)


def used(estimate: Estimate) -> int:
    return sum(term.n_bytes for term in estimate.terms)


def term(estimate: Estimate, name: str) -> int:
    return next(term.n_bytes for term in estimate.terms if term.name == name)


@pytest.mark.parametrize(
    ("version", "gpus", "utilization", "logged_gib"),
    [("0.11", "79.18GiB", 0.9, 51.38), ("0.31", "A100", 0.92, 56.21)],
)
def test_what_is_left_on_a_real_card(
    version: str, gpus: str, utilization: float, logged_gib: float
) -> None:
    """Logged "Available KV cache memory" of Llama-3.1-8B with vLLM's defaults."""
    cards = tuple(replace(gpu, name="NVIDIA A100 80GB") for gpu in imagine(gpus).gpus)
    small = {"max_num_batched_tokens": 2048, "max_num_seqs": 256} if version == "0.31" else {}
    asked = layout(version, gpu_memory_utilization=utilization, context_tokens=16000, **small)
    estimate = evaluate(LLAMA, cards, asked)
    assert estimate.available_kv_bytes / GIB == pytest.approx(logged_gib, rel=0.02)
    assert estimate.fits


def test_terms_and_cache_make_up_the_budget() -> None:
    estimate = evaluate(LLAMA, (known.card(),), SIXTEEN_K)
    assert [each.name for each in estimate.terms] == [
        "weights", "activations", "CUDA graphs", "other",
    ]  # fmt: skip
    assert estimate.budget_bytes == ceil(known.card().total_bytes * 0.92)
    assert used(estimate) + estimate.available_kv_bytes == estimate.budget_bytes
    assert term(estimate, "weights") == weights_per_stage(LLAMA, Parallel())[0]
    assert estimate.outside_bytes == outside_bytes(Parallel())
    assert all(each.low_bytes <= each.n_bytes <= each.high_bytes for each in estimate.terms)


def test_the_figures_of_the_log_come_from_the_blocks() -> None:
    estimate = evaluate(LLAMA, (known.card(),), SIXTEEN_K)
    cache = pool(LLAMA, 0, SIXTEEN_K, "cuda")
    assert estimate.kv_blocks == estimate.available_kv_bytes // cache.bytes_per_block
    assert estimate.max_concurrency == pytest.approx(estimate.kv_blocks / 1024)
    assert estimate.kv_tokens == int(estimate.max_concurrency * 16384)
    assert estimate.kv_bytes_per_token == 131072
    assert estimate.longest_context_tokens == 131072


def test_what_is_missing_is_said_and_nothing_raised() -> None:
    estimate = evaluate(LLAMA, (known.card(total_gib=12),), SIXTEEN_K)
    assert estimate.available_kv_bytes < 0
    assert not estimate.fits
    assert estimate.missing_bytes == estimate.needed_kv_bytes - estimate.available_kv_bytes
    assert (estimate.kv_blocks, estimate.kv_tokens, estimate.max_concurrency) == (0, 0, 0)
    assert estimate.longest_context_tokens == 0


def test_more_requests_need_more() -> None:
    one = evaluate(LLAMA, (known.card(),), SIXTEEN_K)
    many = evaluate(LLAMA, (known.card(),), SIXTEEN_K, Ask(requests=40))
    assert many.needed_kv_bytes > 39 * one.needed_kv_bytes
    assert many.available_kv_bytes == one.available_kv_bytes
    assert (one.fits, many.fits) == (True, False)
    assert many.longest_context_tokens < 16384


def test_replicas_share_the_requests() -> None:
    pair = replace(SIXTEEN_K, parallel=Parallel(data=2))
    cards = (known.card(0), known.card(1))
    alone = evaluate(LLAMA, cards[:1], SIXTEEN_K, Ask(requests=20))
    assert evaluate(LLAMA, cards, pair, Ask(requests=40)).needed_kv_bytes == alone.needed_kv_bytes


def test_given_memory_replaces_the_sum() -> None:
    estimate = evaluate(LLAMA, (known.card(),), SIXTEEN_K, Ask(available_kv_bytes=GIB))
    assert estimate.available_kv_bytes == GIB
    assert used(estimate) + GIB == estimate.budget_bytes
    assert estimate.terms[-1].basis == "given"
    assert estimate.missing_bytes == estimate.needed_kv_bytes - GIB


def test_given_memory_says_nothing_of_what_is_free() -> None:
    busy = (known.card(used_gib=70),)
    assert evaluate(LLAMA, busy, SIXTEEN_K, Ask(available_kv_bytes=3 * GIB)).fits


def test_a_told_cache_ignores_the_utilization() -> None:
    asked = replace(SIXTEEN_K, gpu_memory_utilization=0.3)
    estimate = evaluate(LLAMA, (known.card(),), asked, Ask(kv_cache_bytes=40 * GIB))
    assert estimate.available_kv_bytes == 40 * GIB
    assert estimate.budget_bytes == used(estimate) + 40 * GIB
    assert estimate.fits


def test_a_told_cache_must_be_free_beside_the_rest() -> None:
    estimate = evaluate(LLAMA, (known.card(),), SIXTEEN_K, Ask(kv_cache_bytes=70 * GIB))
    asked = used(estimate) + 70 * GIB + estimate.outside_bytes
    assert estimate.needed_by_free_bytes == asked - known.card().free_bytes
    assert estimate.missing_bytes == estimate.needed_by_free_bytes > 0


def test_a_busy_card_does_not_start() -> None:
    """vLLM asks for utilization × total at the start, whatever it needs in the end."""
    estimate = evaluate(LLAMA, (known.card(used_gib=20),), SIXTEEN_K)
    free = known.card(used_gib=20).free_bytes
    assert estimate.needed_by_free_bytes == (estimate.budget_bytes + estimate.outside_bytes - free)
    assert estimate.needed_by_free_bytes > 0
    assert not estimate.fits
    lowered = replace(SIXTEEN_K, gpu_memory_utilization=0.7)
    assert evaluate(LLAMA, (known.card(used_gib=20),), lowered).fits


def test_measured_terms_replace_ours() -> None:
    measured = profile(
        weights_bytes=15 * GIB, activation_bytes=GIB, graph_bytes=GIB // 2, other_bytes=GIB // 4
    )
    estimate = evaluate(LLAMA, (known.card(),), SIXTEEN_K, Ask(profile=measured))
    assert used(estimate) == 15 * GIB + GIB + GIB // 2 + GIB // 4
    assert {each.basis for each in estimate.terms} == {"measured"}
    assert used(estimate) + estimate.available_kv_bytes == estimate.budget_bytes


def test_graphs_of_a_version_that_does_not_charge_them_are_not_charged() -> None:
    measured = profile(graph_bytes=GIB)
    old = layout("0.11", context_tokens=16384)
    estimate = evaluate(LLAMA, (known.card(),), old, Ask(profile=measured))
    assert term(estimate, "CUDA graphs") == 0


def test_what_was_left_is_left_again() -> None:
    card = known.card()
    budget = ceil(card.total_bytes * 0.92)
    measured = profile(budget_bytes=budget, available_kv_bytes=50 * GIB)
    ask = Ask(profile=measured)
    estimate = evaluate(LLAMA, (card,), SIXTEEN_K, ask)
    assert estimate.available_kv_bytes == 50 * GIB
    assert used(estimate) + 50 * GIB == estimate.budget_bytes
    assert estimate.terms[-1].basis == "measured"
    lower = replace(SIXTEEN_K, gpu_memory_utilization=0.8)
    moved = ceil(card.total_bytes * 0.8) - budget
    assert evaluate(LLAMA, (card,), lower, ask).available_kv_bytes == 50 * GIB + moved


@pytest.mark.parametrize("missing_gib", [0, 1, 5, 40])
def test_no_term_but_the_weights_is_made_negative(missing_gib: int) -> None:
    """A log prints graphs beside a peak that has them in already, so its terms come to too much."""
    card = known.card()
    budget = ceil(card.total_bytes * 0.92)
    measured = profile(
        weights_bytes=15 * GIB, activation_bytes=2 * GIB, graph_bytes=GIB, other_bytes=GIB,
        budget_bytes=budget, available_kv_bytes=budget - (19 - missing_gib) * GIB,
    )  # fmt: skip
    estimate = evaluate(LLAMA, (card,), SIXTEEN_K, Ask(profile=measured))
    sizes = [each.n_bytes for each in estimate.terms]
    assert sum(sizes) == (19 - missing_gib) * GIB
    assert min(sizes[1:]) >= 0
    assert {each.basis for each in estimate.terms} == {"measured"}
    assert (sizes[0] == 15 * GIB) == (missing_gib <= 4)


def test_stages_have_the_measured_blocks_in_common() -> None:
    stages = layout(pipeline=2, context_tokens=16384)
    cards = (known.card(0), known.card(1))
    budget = ceil(cards[0].total_bytes * 0.92)
    measured = profile(
        weights_bytes=1, budget_bytes=budget, available_kv_bytes=3, kv_blocks=50_000,
        block_tokens=16,
    )  # fmt: skip
    estimate = evaluate(LLAMA, cards, stages, Ask(profile=measured))
    assert estimate.kv_blocks == 50_000
    assert term(estimate, "weights") in weights_per_stage(LLAMA, Parallel(pipeline=2))


def test_the_smallest_card_decides() -> None:
    pair = layout(tensor=2, context_tokens=16384)
    small, large = known.card(0, total_gib=23), known.card(1)
    mixed = evaluate(LLAMA, (large, small), pair)
    assert mixed == evaluate(LLAMA, (small, small), pair)
    assert mixed.total_bytes == small.total_bytes


def test_the_fullest_card_limits_the_start() -> None:
    pair = layout(tensor=2, context_tokens=16384)
    busy = evaluate(LLAMA, (known.card(0), known.card(1, used_gib=30)), pair)
    assert busy.free_bytes == known.card(used_gib=30).free_bytes
    assert busy.needed_by_free_bytes > 0


def test_the_stage_with_least_decides() -> None:
    """The last stage has the output layer and the sampler; unless its card is larger."""
    stages = layout("0.16", pipeline=2, context_tokens=16384)
    small, large = (known.card(0, total_gib=gib) for gib in (23, 40))
    last = weights_per_stage(LLAMA, Parallel(pipeline=2))[1]
    assert term(evaluate(LLAMA, (small, small), stages), "weights") == last
    assert evaluate(LLAMA, (small, large), stages).total_bytes == small.total_bytes
    assert evaluate(LLAMA, (large, small), stages).total_bytes == small.total_bytes


def test_ranks_of_replicas_lie_by_stage() -> None:
    """Cards of stage 1 of both replicas are the third and fourth, seventh and eighth."""
    spread = replace(layout(context_tokens=16384), parallel=Parallel(2, 2, 2))
    cards = [known.card(index) for index in range(8)]
    cards[6] = known.card(6, total_gib=20)
    estimate = evaluate(LLAMA, tuple(cards), spread)
    assert estimate.total_bytes == cards[6].total_bytes
    assert term(estimate, "weights") == weights_per_stage(LLAMA, Parallel(2, 2, 2))[1]


@settings(deadline=None)
@given(st.floats(4, 200), st.floats(0, 50), st.floats(0.1, 0.99), st.integers(1, 131072))
def test_more_memory_never_holds_less(
    gib: float, more: float, utilization: float, context: int
) -> None:
    asked = layout(context_tokens=context, gpu_memory_utilization=utilization)
    small, large = (
        evaluate(LLAMA, (known.card(total_gib=size),), asked) for size in (gib, gib + more)
    )
    assert large.kv_blocks >= small.kv_blocks
    assert large.fits >= small.fits
    assert used(small) + small.available_kv_bytes == small.budget_bytes


def test_a_processor_keeps_most_of_its_memory() -> None:
    estimate = evaluate_cpu(known.shape(known.SMOLLM2), known.cpu(), layout(context_tokens=8192))
    one = pool(known.shape(known.SMOLLM2), 0, estimate.layout, "cpu").bytes_for(8192)
    assert estimate.available_kv_bytes == 16 * one
    assert used(estimate) + estimate.available_kv_bytes == estimate.budget_bytes
    assert estimate.fits
    assert estimate.outside_bytes == 0


def test_a_processor_gives_more_to_whom_asks_for_it() -> None:
    small, asked = known.shape(known.SMOLLM2), layout(context_tokens=8192)
    estimate = evaluate_cpu(small, known.cpu(), asked, Ask(requests=40))
    assert estimate.available_kv_bytes == estimate.needed_kv_bytes
    told = evaluate_cpu(small, known.cpu(), asked, Ask(kv_cache_bytes=3 * GIB))
    assert told.available_kv_bytes == 3 * GIB


def test_a_processor_refuses_what_is_not_free() -> None:
    small, asked = known.shape(known.SMOLLM2), layout(context_tokens=8192)
    tight = evaluate_cpu(small, known.cpu(free_gib=2), asked)
    assert tight.missing_bytes == tight.needed_kv_bytes - tight.available_kv_bytes > 0
    told = evaluate_cpu(small, known.cpu(), asked, Ask(kv_cache_bytes=30 * GIB))
    assert told.missing_bytes == told.needed_by_free_bytes > 0


def test_a_rank_on_a_processor_has_its_node() -> None:
    nodes, free = ((0, 1), (2, 3)), (6 * GIB, 9 * GIB)
    two = known.cpu(nodes=nodes, node_free_bytes=free)
    small = known.shape(known.SMOLLM2)
    one = evaluate_cpu(small, two, layout(context_tokens=8192))
    both = evaluate_cpu(small, two, layout(tensor=3, context_tokens=8192))
    assert one.free_bytes == 9 * GIB
    assert both.free_bytes == 3 * GIB  # three ranks on two nodes: two share the smaller


def test_a_processor_of_which_nothing_is_known_has_nothing() -> None:
    nothing = imagine("H100").cpu
    estimate = evaluate_cpu(known.shape(known.SMOLLM2), nothing, layout(context_tokens=8192))
    assert estimate.free_bytes == 0
    assert not estimate.fits
