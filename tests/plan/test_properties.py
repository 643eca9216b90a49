"""What must hold for any model, machine and wish."""

from dataclasses import replace
from math import ceil
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serve.errors import DoesNotFit, SettingsError
from serve.hardware import Gpu, Machine
from serve.plan import Verdict, Wishes, judge, make_plan
from serve.plan.estimate import Ask, evaluate
from serve.plan.plan import Estimate, Layout
from serve.shape import Parallel
from tests.plan.known import (
    CHATGLM_9B,
    DEEPSEEK_V2_LITE,
    GIB,
    LLAMA_8B,
    QWEN3_8B,
    QWEN3_235B_FP8,
    QWEN25_7B,
    SMOLLM2,
    card,
    cpu,
    shape,
    subject,
    with_gpus,
)
from tests.plan.test_cures import taken

GPT_OSS: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"], "num_hidden_layers": 24, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 64, "hidden_size": 2880, "intermediate_size": 2880,
    "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128,
    "vocab_size": 201088, "max_position_embeddings": 131072, "dtype": "bfloat16",
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]},
}  # fmt: skip

CONFIGS = st.sampled_from(
    [LLAMA_8B, QWEN3_8B, QWEN25_7B, QWEN3_235B_FP8, DEEPSEEK_V2_LITE, CHATGLM_9B, SMOLLM2, GPT_OSS]
)
CONTEXTS = st.integers(16, 131_072)
REQUESTS = st.integers(1, 64)
SIZES = st.floats(6, 200)
LAYOUTS = st.builds(
    Layout,
    parallel=st.builds(Parallel, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 3])),
    context_tokens=CONTEXTS,
    max_num_batched_tokens=st.sampled_from([512, 2048, 8192, 16384]),
    max_num_seqs=st.sampled_from([8, 256, 1024]),
    kv_dtype=st.sampled_from(["auto", "fp8"]),
    block_tokens=st.sampled_from([16, 64]),
    gpu_memory_utilization=st.floats(0.1, 1.0),
    version=st.sampled_from(["0.11", "0.26", "0.30", "0.32", "0.33"]),
    is_eager=st.booleans(),
)
ANY_WISHES = st.builds(
    Wishes,
    context_tokens=st.none() | st.integers(2048, 40_960),
    concurrency=st.none() | REQUESTS,
    kv_dtype=st.none() | st.just("fp8"),
    max_num_seqs=st.none() | st.just(256),
    gpu_memory_utilization=st.none() | st.floats(0.3, 0.97),
    is_strict=st.booleans(),
)

# What narrows the ways out.
NARROW_WISHES = st.builds(
    replace,
    ANY_WISHES,
    tensor_parallel=st.none() | st.just(1),
    pipeline_parallel=st.none() | st.just(1),
    available_kv_bytes=st.none() | st.none() | st.integers(-GIB, 8 * GIB),
    gpu_memory_utilization=st.none() | st.sampled_from([0.5, 0.9, 1.0]),
)


def weighed(config: dict[str, Any], total_gib: float, layout: Layout, requests: int) -> Estimate:
    parallel = layout.parallel
    cards = tuple(card(n, total_gib) for n in range(parallel.tensor * parallel.pipeline))
    return evaluate(shape(config), cards, layout, Ask(requests))


def judged(config: dict[str, Any], machine: Machine, wishes: Wishes) -> Verdict:
    try:
        return judge(shape(config), machine, wishes)
    except SettingsError:
        assume(False)
        raise


@given(CONFIGS, SIZES, LAYOUTS, REQUESTS)
def test_the_terms_and_the_kv_cache_are_the_budget(
    config: dict[str, Any], total_gib: float, layout: Layout, requests: int
) -> None:
    found = weighed(config, total_gib, layout, requests)
    assert sum(term.n_bytes for term in found.terms) + found.available_kv_bytes == (
        found.budget_bytes
    )
    assert found.budget_bytes == ceil(found.total_bytes * layout.gpu_memory_utilization)
    assert all(term.low_bytes <= term.n_bytes <= term.high_bytes for term in found.terms)


@given(CONFIGS, SIZES, st.floats(0, 100), LAYOUTS, REQUESTS)
def test_more_memory_never_misses_more(
    config: dict[str, Any], total_gib: float, more_gib: float, layout: Layout, requests: int
) -> None:
    less, more = (
        weighed(config, size, layout, requests) for size in (total_gib, total_gib + more_gib)
    )
    assert more.missing_bytes <= less.missing_bytes
    assert more.kv_tokens >= less.kv_tokens
    assert more.longest_context_tokens >= less.longest_context_tokens


@given(CONFIGS, SIZES, LAYOUTS, REQUESTS, CONTEXTS)
def test_more_context_never_needs_less(
    config: dict[str, Any], total_gib: float, layout: Layout, requests: int, other: int
) -> None:
    short, long = sorted((layout.context_tokens, other))
    less, more = (
        weighed(config, total_gib, replace(layout, context_tokens=context), requests)
        for context in (short, long)
    )
    assert more.needed_kv_bytes >= less.needed_kv_bytes
    assert more.missing_bytes >= less.missing_bytes
    assert less.fits or not more.fits


@settings(deadline=None, max_examples=40)
@given(CONFIGS, SIZES, st.floats(0, 60), st.integers(1, 4), ANY_WISHES)
def test_a_larger_machine_never_fits_less(
    config: dict[str, Any], total_gib: float, more_gib: float, count: int, wishes: Wishes
) -> None:
    """Where vLLM's defaults grow with the card, batches may have to be smaller, as is allowed."""
    wishes = replace(wishes, is_strict=False)
    sizes = (total_gib, total_gib + more_gib)
    small, large = (with_gpus(*(card(n, size) for n in range(count))) for size in sizes)
    if judged(config, small, wishes).estimate.fits:
        assert judged(config, large, wishes).estimate.fits
        more = replace(small, gpus=(*small.gpus, card(count, total_gib)))
        assert judged(config, more, wishes).estimate.fits


@settings(deadline=None, max_examples=40)
@given(CONFIGS, SIZES, st.integers(1, 4), ANY_WISHES, st.integers(2048, 40_960))
def test_a_shorter_wish_never_fits_less(
    config: dict[str, Any], total_gib: float, count: int, wishes: Wishes, other: int
) -> None:
    machine = with_gpus(*(card(n, total_gib) for n in range(count)))
    most = shape(config).max_position or 0
    short, long = sorted((min(wishes.context_tokens or most, most), min(other, most)))
    if judged(config, machine, replace(wishes, context_tokens=long)).estimate.fits:
        assert judged(config, machine, replace(wishes, context_tokens=short)).estimate.fits


CARDS = st.builds(card, total_gib=SIZES, used_gib=st.floats(0, 6), name=st.sampled_from("ab"))


def _numbered(cards: list[Gpu]) -> Machine:
    return with_gpus(*(replace(each, index=n, uuid=f"GPU-{n}") for n, each in enumerate(cards)))


@settings(deadline=None, max_examples=40)
@given(CONFIGS, st.lists(CARDS, min_size=1, max_size=8), ANY_WISHES)
def test_a_plan_never_exceeds_any_one_of_its_cards(
    config: dict[str, Any], cards: list[Gpu], wishes: Wishes
) -> None:
    machine = _numbered(cards)
    try:
        plan = make_plan(subject(131_072, 15), shape(config), machine, wishes)
    except (DoesNotFit, SettingsError):
        return
    ranks = [machine.gpus[index] for index in plan.gpus]
    assert len(ranks) == plan.tensor_parallel * plan.pipeline_parallel
    for each in ranks:
        assert sum(size for _, size in plan.parts) <= each.free_bytes
        assert plan.gpu_memory_utilization * each.total_bytes <= each.free_bytes
    assert plan.kv_tokens >= plan.context_tokens * (wishes.concurrency or 1)


@settings(deadline=None, max_examples=40)
@given(CONFIGS, st.lists(CARDS, min_size=1, max_size=4), st.floats(4, 64), NARROW_WISHES)
def test_every_cure_cures(
    config: dict[str, Any], cards: list[Gpu], cpu_gib: float, wishes: Wishes
) -> None:
    machine = replace(_numbered(cards), cpu=cpu(cpu_gib))
    verdict = judged(config, machine, wishes)
    assert (verdict.estimate.missing_bytes > 0) == (not verdict.estimate.fits)
    if verdict.estimate.fits:
        assert verdict.cures == () and verdict.copies >= 1
        return
    assert len(verdict.cures) <= 3
    for cure in verdict.cures:
        if cure.flags[:2] == ("--device", "cpu"):
            wishes = replace(wishes, gpu_memory_utilization=None)
        assert taken(cure, shape(config), machine, wishes).estimate.fits, cure


@settings(deadline=None, max_examples=40)
@given(CONFIGS, st.lists(CARDS, min_size=1, max_size=8), ANY_WISHES)
def test_judge_and_make_plan_agree(
    config: dict[str, Any], cards: list[Gpu], wishes: Wishes
) -> None:
    machine, model = _numbered(cards), subject(131_072, 15)
    try:
        verdict = judge(shape(config), machine, wishes, model)
    except SettingsError as error:
        with pytest.raises(SettingsError, match=error.key):
            make_plan(model, shape(config), machine, wishes)
        return
    if not verdict.estimate.fits:
        with pytest.raises(DoesNotFit):
            make_plan(model, shape(config), machine, wishes)
        return
    plan = make_plan(model, shape(config), machine, wishes)
    layout = verdict.estimate.layout
    assert plan.context_tokens == layout.context_tokens
    assert plan.kv_tokens == verdict.estimate.kv_tokens
    assert (plan.tensor_parallel, plan.pipeline_parallel) == (
        layout.parallel.tensor, layout.parallel.pipeline,
    )  # fmt: skip
