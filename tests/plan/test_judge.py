"""Plans over several cards, calibrated plans, and verdicts."""

from dataclasses import replace
from typing import Any

import pytest

from serve.catalog import Extension
from serve.errors import DoesNotFit, SettingsError
from serve.hardware import Machine, imagine
from serve.hardware.machine import Link
from serve.plan import Plan, Subject, Wishes, judge, make_plan
from serve.profiles import Profile, ProfileKey
from tests.plan.known import (
    GIB,
    LLAMA_8B,
    QWEN3_8B,
    QWEN25_7B,
    SMOLLM2,
    card,
    cpu,
    shape,
    subject,
    with_gpus,
)

LLAMA = subject(131072, 14.96)
ANY = Wishes()
YARN = Extension(131072, "YaRN", (("hf-overrides", "{}"),))


def plan_for(
    model: Subject, config: dict[str, Any], machine: Machine, wishes: Wishes = ANY
) -> Plan:
    return make_plan(model, shape(config), machine, wishes)


# --- several cards, and what was measured before


def test_a_model_that_cannot_be_halved_is_laid_in_a_pipeline() -> None:
    """9 heads: three cards share them, two and four cannot."""
    cards = with_gpus(*(card(n, 3) for n in range(2)))
    plan = plan_for(subject(8192, 1), SMOLLM2, cards, Wishes(concurrency=10))
    assert (plan.tensor_parallel, plan.pipeline_parallel) == (1, 2)


def test_nvlink_pairs_are_tensor_ranks_and_pcie_is_crossed_by_a_pipeline() -> None:
    pairs = (Link(0, 1, "NVLINK"), Link(2, 3, "NVLINK"), Link(1, 2, "SYS"))
    machine = replace(with_gpus(*(card(n, 23.6) for n in range(4))), links=pairs)
    plan = plan_for(subject(131072, 15), LLAMA_8B, machine, Wishes(concurrency=4))
    assert (plan.tensor_parallel, plan.pipeline_parallel, plan.gpus) == (2, 2, (0, 1, 2, 3))


def test_room_for_so_many_requests() -> None:
    one, four = (
        plan_for(LLAMA, LLAMA_8B, with_gpus(card()), Wishes(context_tokens=65536, concurrency=n))
        for n in (1, 4)
    )
    assert one.context_tokens == four.context_tokens == 65536
    assert four.max_concurrency >= 4
    with pytest.raises(DoesNotFit) as caught:
        plan_for(LLAMA, LLAMA_8B, with_gpus(card()), Wishes(context_tokens=65536, concurrency=40))
    assert "KV cache for 40 x 65,536 tokens" in dict(caught.value.parts)


def test_more_requests_than_vllm_runs_by_itself_raise_its_limit() -> None:
    wishes = Wishes(context_tokens=128, concurrency=300)
    plan = plan_for(LLAMA, LLAMA_8B, with_gpus(card(0, 47.5, name="RTX 6000 Ada")), wishes)
    assert (plan.max_num_batched_tokens, plan.max_num_seqs) == (2048, 300)


def test_limits_that_vllm_takes_by_itself_are_not_named() -> None:
    plan = plan_for(LLAMA, LLAMA_8B, with_gpus(card()))
    assert (plan.max_num_batched_tokens, plan.max_num_seqs) == (None, None)
    assert (plan.kv_dtype, plan.dtype) == (None, None)


def test_wished_limits_are_named() -> None:
    wishes = Wishes(max_num_seqs=64, kv_dtype="fp8", dtype="float16", tensor_parallel=2)
    plan = plan_for(LLAMA, LLAMA_8B, with_gpus(card(0), card(1)), wishes)
    assert (plan.max_num_batched_tokens, plan.max_num_seqs) == (8192, 64)
    assert (plan.kv_dtype, plan.dtype, plan.tensor_parallel) == ("fp8", "float16", 2)


def test_batches_shrink_where_nothing_else_makes_room() -> None:
    """A vocabulary of 1.5 million entries: the peak of the old sampler would not go in."""
    wide = SMOLLM2 | {"vocab_size": 1_500_032}
    plan = plan_for(subject(8192, 2), wide, with_gpus(card(0, 12)), Wishes(engine_version="0.11"))
    assert plan.max_num_seqs is not None and plan.max_num_seqs < 256
    assert plan.note is not None and plan.note.startswith("batches are limited to ")


def test_what_was_measured_is_planned_with_and_told_to_the_engine() -> None:
    expected = plan_for(LLAMA, LLAMA_8B, with_gpus(card()))
    assert expected.key is not None and not expected.is_kv_fixed
    asked: list[ProfileKey] = []

    def find(key: ProfileKey) -> Profile | None:
        asked.append(key)
        budget = int(0.92 * 79.18 * GIB)
        return Profile(
            key, 1.0, "m", 15 * GIB, 3 * GIB, GIB, GIB // 2, budget, 50 * GIB, None, 16, None
        ) if key == expected.key else None  # fmt: skip

    plan = make_plan(LLAMA, shape(LLAMA_8B), with_gpus(card()), ANY, find)
    assert plan.is_calibrated and plan.is_kv_fixed
    assert plan.kv_cache_bytes == pytest.approx(50 * GIB, rel=0.001)
    assert plan.kv_tokens == pytest.approx(50 * GIB // 131072, rel=0.001)
    assert asked == [expected.key]
    assert (plan.key, plan.device_name) == (expected.key, expected.key.device)


def test_other_limits_are_other_profiles() -> None:
    keys = {
        plan_for(LLAMA, LLAMA_8B, with_gpus(card(), card(1)), wishes).key
        for wishes in (ANY, Wishes(max_num_seqs=8), Wishes(kv_dtype="fp8"),
                       Wishes(tensor_parallel=2), Wishes(engine_version="0.30"))
    }  # fmt: skip
    assert len(keys) == 5


def test_eagerness_and_versions_are_as_wished() -> None:
    machine = with_gpus(card())
    eager = judge(shape(LLAMA_8B), machine, Wishes(is_eager=True))
    assert {term.name: term.n_bytes for term in eager.estimate.terms}["CUDA graphs"] == 0
    assert eager.estimate.layout.is_eager
    old = judge(shape(LLAMA_8B), machine, Wishes(engine_version="0.11"))
    assert old.estimate.layout.gpu_memory_utilization == 0.9


# --- verdicts


def test_a_verdict_says_what_people_ask() -> None:
    machine = imagine("4x RTX 4090")
    verdict = judge(shape(LLAMA_8B), machine, Wishes(context_tokens=32768), "llama")
    assert (verdict.model, verdict.device, verdict.basis) == ("llama", "cuda", "estimated")
    assert verdict.devices == ("RTX 4090 24GB",)
    assert verdict.copies == 4
    assert verdict.speed is not None and verdict.speed.decode_tokens_s > 0


def test_copies_have_cards_of_their_own() -> None:
    wishes = Wishes(context_tokens=32768, tensor_parallel=2)
    busy = card(3, 23.6, used_gib=20)
    machine = with_gpus(*(card(n, 23.6) for n in range(3)), busy, card(4, 23.6))
    assert judge(shape(LLAMA_8B), machine, wishes).copies == 2


def test_a_known_amount_replaces_the_sum() -> None:
    wishes = Wishes(context_tokens=16000, available_kv_bytes=32 * GIB)
    verdict = judge(shape(LLAMA_8B), imagine("79.18GiB"), wishes)
    assert verdict.basis == "given"
    assert verdict.estimate.available_kv_bytes == 32 * GIB
    assert verdict.estimate.kv_tokens == 32 * 8192


def test_a_verdict_of_a_catalog_entry_knows_its_lengths() -> None:
    extended = subject(32768, 14, extension=YARN)
    plain = judge(shape(QWEN25_7B), with_gpus(card()), ANY, extended.spec)
    assert plain.estimate.layout.context_tokens == 32768
    longer = judge(shape(QWEN25_7B), with_gpus(card()), Wishes(context_tokens=65536), extended)
    assert longer.estimate.layout.context_tokens == 65536
    assert longer.model == "some-model"
    strict = Wishes(context_tokens=140_000, is_strict=True)
    with pytest.raises(SettingsError, match="131,072"):
        judge(shape(QWEN25_7B), with_gpus(card()), strict, extended)


def test_recommended_limits_count_until_somebody_wishes_others() -> None:
    """The catalog's engine arguments; they reach the engine by themselves, the sum must know."""
    spec = subject(8192, 1, engine_args=(("max-num-seqs", 32), ("kv-cache-dtype", "fp8"))).spec
    layout = judge(shape(LLAMA_8B), with_gpus(card()), ANY, spec).estimate.layout
    assert (layout.max_num_seqs, layout.kv_dtype) == (32, "fp8")
    wished = judge(shape(LLAMA_8B), with_gpus(card()), Wishes(max_num_seqs=16), spec)
    assert wished.estimate.layout.max_num_seqs == 16


def test_a_verdict_on_a_processor() -> None:
    verdict = judge(shape(SMOLLM2), Machine(cpu(20)), ANY, "starter")
    assert (verdict.device, verdict.devices, verdict.copies) == ("cpu", ("a CPU",), 1)
    assert verdict.estimate.fits


def test_busy_cards_are_said() -> None:
    verdict = judge(shape(LLAMA_8B), with_gpus(card(used_gib=30)), ANY)
    assert verdict.notes[0].startswith("only 61.")


def test_what_fits_by_less_than_the_estimates_may_be_off_says_so() -> None:
    narrow = judge(shape(QWEN3_8B), imagine("RTX 4090"), Wishes(context_tokens=36_864))
    assert narrow.estimate.fits
    assert narrow.notes[0].startswith("it fits with ")
    assert narrow.notes[0].endswith(": the first start will tell")
    wide = judge(shape(QWEN3_8B), imagine("RTX 4090"), Wishes(context_tokens=16_384))
    assert wide.estimate.fits and wide.notes == ()


def test_cards_without_bfloat16_are_said() -> None:
    turing = with_gpus(card(0, 23.6, compute_capability=(7, 5), name="TITAN RTX"))
    verdict = judge(shape(QWEN3_8B), turing, Wishes(context_tokens=8192))
    assert verdict.notes == ("these cards do not compute in bfloat16: the engine takes float16",)


def profile(key: ProfileKey, budget_bytes: int, left_bytes: int) -> Profile:
    """A launch that measured this; terms of 1 GiB each."""
    return Profile(
        key=key, measured_at=1.0, model="m", weights_bytes=GIB, activation_bytes=GIB,
        graph_bytes=GIB, other_bytes=GIB, budget_bytes=budget_bytes, available_kv_bytes=left_bytes,
        kv_blocks=None, block_tokens=None, kv_tokens=None,
    )  # fmt: skip


def test_a_shortened_context_keeps_a_distance_until_something_was_measured() -> None:
    verdict = judge(shape(QWEN3_8B), imagine("RTX 4090"), ANY)
    estimate = verdict.estimate
    assert estimate.layout.context_tokens < 40960
    spread = sum(term.high_bytes - term.n_bytes for term in estimate.terms)
    spare = estimate.available_kv_bytes - estimate.needed_kv_bytes
    assert spread <= spare < spread + 64 * estimate.kv_bytes_per_token

    def find(key: ProfileKey) -> Profile:
        return profile(key, estimate.budget_bytes, estimate.available_kv_bytes)

    measured = judge(shape(QWEN3_8B), imagine("RTX 4090"), ANY, "m", find)
    assert measured.basis == "measured"
    assert measured.estimate.layout.context_tokens > estimate.layout.context_tokens
    spare = measured.estimate.available_kv_bytes - measured.estimate.needed_kv_bytes
    assert spare < 64 * estimate.kv_bytes_per_token


def test_stages_that_differ_are_not_told_one_size() -> None:
    wishes = Wishes(pipeline_parallel=2, tensor_parallel=1)

    def find(key: ProfileKey) -> Profile:
        return profile(key, 72 * GIB, 50 * GIB)

    pair = with_gpus(card(0), card(1))
    plan = make_plan(LLAMA, shape(LLAMA_8B), pair, wishes, find)
    assert plan.is_calibrated and not plan.is_kv_fixed
