"""Plans for real machines: where, how much, and why not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.catalog import Extension
from serve.errors import DoesNotFit
from serve.hardware import Gpu, Machine
from serve.plan import Plan, Subject, Wishes, make_plan
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

STARTER = subject(8192, 0.26)
LLAMA = subject(131072, 14.96)
ANY = Wishes()


def plan_for(
    model: Subject, config: dict[str, Any], machine: Machine, wishes: Wishes = ANY
) -> Plan:
    return make_plan(model, shape(config), machine, wishes)


def starter_on(free_gib: float, wishes: Wishes = ANY, **more: Any) -> Plan:
    return plan_for(STARTER, SMOLLM2, Machine(cpu(free_gib, **more)), wishes)


def parts_sum(plan: Plan) -> int:
    return sum(size for _, size in plan.parts)


def refused(
    config: dict[str, Any], machine: Machine, wishes: Wishes = ANY, **facts: Any
) -> DoesNotFit:
    context, weights_gib = facts.pop("context", 131072), facts.pop("weights_gib", 15)
    with pytest.raises(DoesNotFit) as caught:
        plan_for(subject(context, weights_gib, **facts), config, machine, wishes)
    error = caught.value
    assert error.model == "some-model"
    assert error.needed_bytes == sum(size for _, size in error.parts)
    return error


# --- on the processor


def test_the_starter_on_a_small_machine() -> None:
    plan = starter_on(20)
    assert (plan.device, plan.gpus, plan.cores, plan.tensor_parallel) == ("cpu", (), (0, 1), 1)
    assert plan.context_tokens == 8192
    # 16 requests of full length (each with a null block), in blocks of 128 x 23,040 bytes.
    assert plan.kv_cache_bytes == 16 * 65 * 128 * 23040
    assert plan.kv_tokens == 16 * 65 * 128
    assert plan.is_kv_fixed and plan.note is None
    assert [label for label, _ in plan.parts] == ["weights", "engine processes", "KV cache"]
    assert parts_sum(plan) < 20 * GIB


def test_a_third_of_the_memory_is_the_most_that_is_taken() -> None:
    plan = starter_on(8)
    assert plan.kv_cache_bytes == pytest.approx(8 * GIB / 3, rel=0.01)
    assert plan.kv_cache_bytes % (128 * 23040) == 0


def test_one_full_context_is_worth_more_than_a_third() -> None:
    plan = plan_for(LLAMA, LLAMA_8B, Machine(cpu(40)), Wishes(context_tokens=120_000))
    assert plan.context_tokens == 120_000
    assert plan.kv_cache_bytes > 40 * GIB / 3
    assert parts_sum(plan) <= 40 * GIB


def test_a_context_that_does_not_fit_is_shortened_and_told() -> None:
    plan = plan_for(LLAMA, LLAMA_8B, Machine(cpu(24)), ANY)
    assert 2048 <= plan.context_tokens < 131072
    assert plan.context_tokens % 128 == 0
    assert plan.note == (
        f"the context is shortened to {plan.context_tokens:,} tokens: more does not fit"
    )
    assert parts_sum(plan) <= 24 * GIB


def test_wishes_are_taken_as_they_are() -> None:
    plan = starter_on(20, Wishes("cpu", context_tokens=512, kv_cache_bytes=256 * 2**20))
    assert (plan.context_tokens, plan.kv_cache_bytes) == (512, 256 * 2**20)
    assert plan.kv_tokens == 256 * 2**20 // (128 * 23040) * 128


def test_a_context_beyond_what_the_model_was_made_for_is_not_given() -> None:
    assert starter_on(20, Wishes(context_tokens=100_000)).context_tokens == 8192
    short = plan_for(STARTER, SMOLLM2 | {"max_position_embeddings": 4096}, Machine(cpu()), ANY)
    assert short.context_tokens == 4096


def test_a_config_without_a_length_leaves_it_to_the_catalog() -> None:
    config = SMOLLM2 | {"max_position_embeddings": None}
    assert plan_for(STARTER, config, Machine(cpu()), ANY).context_tokens == 8192


def test_the_engine_gets_one_numa_node_and_its_memory() -> None:
    nodes = ((0, 1), (2, 3, 4), (5, 6, 7))
    frees = (60 * GIB, 5 * GIB, 6 * GIB)
    plan = starter_on(70, nodes=nodes, node_free_bytes=frees)
    assert plan.cores == (5, 6, 7)
    assert parts_sum(plan) <= 6 * GIB
    limited = starter_on(4, nodes=nodes, node_free_bytes=frees)
    assert parts_sum(limited) <= 4 * GIB


def test_mla_on_a_processor() -> None:
    plan = plan_for(subject(32768, 4), DEEPSEEK_V2_LITE, Machine(cpu(48)), ANY)
    assert plan.kv_cache_bytes % (31104 * 16) == 0
    assert plan.context_tokens == 32768


def test_a_kv_cache_in_eight_bits_holds_twice_as_much() -> None:
    wishes = Wishes(kv_cache_bytes=2**30)
    fp8 = replace(STARTER, spec=replace(STARTER.spec, engine_args=(("kv-cache-dtype", "fp8"),)))
    plain, small = (plan_for(each, SMOLLM2, Machine(cpu()), wishes) for each in (STARTER, fp8))
    assert small.kv_tokens == pytest.approx(2 * plain.kv_tokens, rel=0.01)


def test_weights_that_do_not_go_into_memory_are_refused_with_the_sum() -> None:
    error = refused(LLAMA_8B, Machine(cpu(16)))
    assert (error.device, error.free_bytes) == ("cpu", 16 * GIB)
    assert [label for label, _ in error.parts] == [
        "weights", "engine processes", "KV cache for 2,048 tokens",
    ]  # fmt: skip
    assert error.needed_bytes > 16 * GIB
    assert error.remedy == ("choose a smaller model or a quantised variant, or free some memory")


@pytest.mark.parametrize(
    ("wishes", "remedy"),
    [
        (Wishes(context_tokens=100_000), "lower engine.context to at most 40832 tokens"),
        (Wishes(kv_cache_bytes=8 * GIB), "lower engine.kv_cache to at most 5.0 GiB"),
        (Wishes(kv_cache_bytes=2**20), "raise engine.kv_cache to at least 272.0 MiB"),
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be_met_is_refused_with_what_can(wishes: Wishes, remedy: str) -> None:
    error = refused(LLAMA_8B, Machine(cpu(24)), wishes)
    assert error.remedy == f"{remedy}, or leave it out"


# --- on GPUs


def test_an_8b_model_on_one_h100() -> None:
    plan = plan_for(LLAMA, LLAMA_8B, with_gpus(card()), ANY)
    assert (plan.device, plan.gpus, plan.gpu_uuids) == ("cuda", (0,), ("GPU-0",))
    assert (plan.cores, plan.tensor_parallel) == ((), 1)
    assert plan.gpu_memory_utilization == 0.92
    assert plan.context_tokens == 131072
    assert not plan.is_kv_fixed
    assert parts_sum(plan) <= 0.92 * 79.18 * GIB
    # What is left of 0.92 x 79.18 GiB, at 128 KiB a token.
    others = parts_sum(plan) - plan.kv_cache_bytes
    left = 0.92 * 79.18 * GIB - others
    assert 15 * GIB < others < 22 * GIB
    assert plan.kv_tokens == pytest.approx(left / 131072, rel=0.001)


def test_memory_that_others_hold_lowers_the_share() -> None:
    plan = plan_for(LLAMA, LLAMA_8B, with_gpus(card(used_gib=30)), ANY)
    assert plan.gpu_memory_utilization * 79.18 <= 79.18 - 30 - 0.6
    assert plan.gpu_memory_utilization * 79.18 > 79.18 - 30 - 0.8


def test_the_freest_card_is_taken() -> None:
    plan = plan_for(LLAMA, LLAMA_8B, with_gpus(card(0, used_gib=60), card(1), card(2)), ANY)
    assert plan.gpus == (1,)


@pytest.mark.parametrize(
    ("config", "facts", "count", "total_gib", "expected"),
    [
        pytest.param(LLAMA_8B, (131072, 15), 8, 79.18, 1, id="8B on H100"),
        pytest.param(LLAMA_8B, (131072, 15), 8, 23.6, 2, id="8B, 128k on 24 GB cards"),
        pytest.param(LLAMA_8B, (8192, 15), 8, 23.6, 1, id="8B, 8k on 24 GB cards"),
        pytest.param(QWEN25_7B, (32768, 15), 8, 15.9, 2, id="7B on 16 GB cards"),
        pytest.param(QWEN3_235B_FP8, (40960, 220), 8, 79.18, 4, id="235B FP8: TP 8 is no cut"),
        pytest.param(CHATGLM_9B, (131072, 17.5), 8, 23.6, 2, id="GLM: 2 KV heads"),
    ],
)  # fmt: skip
def test_the_fewest_cards_that_hold_one_full_request(
    config: dict[str, Any], facts: tuple[int, float], count: int, total_gib: float, expected: int
) -> None:
    gpus = [card(n, total_gib, name="a card") for n in range(count)]
    plan = plan_for(subject(*facts), config, with_gpus(*gpus), ANY)
    assert plan.tensor_parallel == len(plan.gpus) == expected
    assert plan.context_tokens == facts[0]


def test_the_smallest_of_unlike_cards_decides() -> None:
    small = card(1, 15.9, name="y")
    plans = [
        plan_for(subject(4096, 20), LLAMA_8B, with_gpus(card(0, total_gib, name="x"), small), ANY)
        for total_gib in (15.9, 17, 31.8)
    ]
    assert [plan.gpus for plan in plans] == [(0, 1), (0, 1), (0,)]
    assert plans[0].kv_cache_bytes == plans[1].kv_cache_bytes


def test_a_context_is_shortened_only_when_no_number_of_cards_holds_it() -> None:
    plan = plan_for(LLAMA, LLAMA_8B, with_gpus(card(0, 23.6, name="RTX 4090")), ANY)
    assert 2048 < plan.context_tokens < 131072
    assert plan.note is not None
    assert plan.kv_cache_bytes >= plan.context_tokens * 131072


def test_a_wished_kv_cache_is_fixed() -> None:
    plan = plan_for(LLAMA, LLAMA_8B, with_gpus(card()), Wishes(kv_cache_bytes=20 * GIB))
    assert plan.kv_cache_bytes == 20 * GIB
    assert plan.is_kv_fixed


def test_slices_are_used_one_at_a_time() -> None:
    slices = [card(0, 20, is_slice=True), card(0, 20, is_slice=True)]
    plan = plan_for(subject(4096, 12), LLAMA_8B, with_gpus(*slices), ANY)
    assert plan.tensor_parallel == 1
    refused(CHATGLM_9B, with_gpus(*(replace(each, total_bytes=18 * GIB) for each in slices)))


def test_a_model_too_large_for_all_cards_is_refused_per_card() -> None:
    error = refused(QWEN3_235B_FP8, with_gpus(card(0), card(1)), weights_gib=220, context=40960)
    assert error.device == "cuda"
    assert dict(error.parts)["weights"] > 110 * GIB
    assert error.free_bytes <= 0.92 * 79.18 * GIB
    assert error.remedy == (
        "choose a smaller model or a quantised variant, or free or add GPU memory"
    )


def test_a_full_card_is_refused() -> None:
    error = refused(LLAMA_8B, with_gpus(card(used_gib=79)))
    assert error.free_bytes == 0


@pytest.mark.parametrize("problem", [None, "GPU 0: GPU is lost"])
def test_gpus_that_are_not_there_are_told(problem: str | None) -> None:
    error = refused(QWEN3_8B, Machine(cpu(), gpu_problem=problem), Wishes("cuda"))
    assert error.device == "cuda"
    assert error.remedy == (problem or "no NVIDIA GPU was found; set engine.device to cpu")


def test_the_processor_can_be_asked_for_beside_gpus() -> None:
    assert plan_for(STARTER, SMOLLM2, with_gpus(card()), Wishes("cpu")).device == "cpu"


CARDS = st.lists(
    st.builds(
        card,
        index=st.integers(0, 7),
        total_gib=st.floats(8, 192),
        used_gib=st.floats(0, 8),
        is_slice=st.booleans(),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(
    config=st.sampled_from([LLAMA_8B, QWEN3_8B, QWEN3_235B_FP8, DEEPSEEK_V2_LITE, CHATGLM_9B]),
    weights_gib=st.floats(0.1, 300),
    free_gib=st.floats(0.1, 300),
    gpus=CARDS,
    wishes=st.builds(
        Wishes,
        device=st.just("auto"),
        context_tokens=st.none() | st.integers(16, 200_000),
        kv_cache_bytes=st.none() | st.integers(0, 64 * GIB),
    ),
)
def test_a_plan_never_promises_more_than_there_is(
    config: dict[str, Any], weights_gib: float, free_gib: float, gpus: list[Gpu], wishes: Wishes
) -> None:
    machine = Machine(cpu(free_gib), tuple(gpus))
    try:
        plan = plan_for(subject(32768, weights_gib), config, machine, wishes)
    except DoesNotFit as error:
        assert error.needed_bytes > error.free_bytes or "engine." in (error.remedy or "")
        return
    chosen = [gpu for gpu in gpus if gpu.index in plan.gpus] if plan.gpus else []
    room = min((gpu.free_bytes for gpu in chosen), default=int(free_gib * GIB))
    assert parts_sum(plan) <= max([room, *(gpu.free_bytes for gpu in chosen)])
    assert plan.kv_tokens >= plan.context_tokens
    assert wishes.context_tokens is None or plan.context_tokens <= wishes.context_tokens
    assert wishes.kv_cache_bytes in (None, plan.kv_cache_bytes)


YARN = Extension(131072, "YaRN", (("hf-overrides", "{}"),))
QWEN25 = subject(32768, 14.19, extension=YARN)


def on_a_card(wished: int | None, extension: Extension | None, **config: Any) -> Plan:
    model = subject(32768, 14.19, extension=extension)
    return plan_for(model, QWEN25_7B | config, with_gpus(card()), Wishes(context_tokens=wished))


@pytest.mark.parametrize(
    ("wished", "context"),
    [(None, 32768), (32768, 32768), (32769, 32769), (65536, 65536), (200_000, 131072)],
)
def test_a_wish_for_more_switches_the_extension_on(wished: int | None, context: int) -> None:
    plan = on_a_card(wished, YARN)
    assert plan.context_tokens == context
    if context > 32768:
        assert plan.note == (
            "the context is extended beyond the 32,768 tokens it is made for: YaRN"
        )
    else:
        assert plan.note is None


def test_the_rope_cache_of_a_longer_context_is_counted() -> None:
    longer = dict(on_a_card(65536, YARN).parts)["weights"]
    assert longer - dict(on_a_card(None, YARN).parts)["weights"] == (131072 - 32768) * 128 * 2


def test_an_extension_that_is_only_told_is_not_used() -> None:
    assert on_a_card(65536, Extension(131072, "by hand")).context_tokens == 32768


def test_an_extension_by_length_alone_ends_where_the_config_ends() -> None:
    alone = Extension(131072, "its config allows it", ())
    plan = on_a_card(65536, alone)
    assert (plan.context_tokens, plan.note) == (32768, None)
    assert on_a_card(65536, alone, max_position_embeddings=163840).context_tokens == 65536


def test_an_extended_context_that_does_not_fit_is_refused() -> None:
    small = with_gpus(card(total_gib=18))
    with pytest.raises(DoesNotFit):
        plan_for(QWEN25, QWEN25_7B, small, Wishes(context_tokens=131072))


def test_a_plan_carries_its_subject() -> None:
    assert starter_on(20).subject is STARTER
    assert STARTER.path == Path("/weights")
