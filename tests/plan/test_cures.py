"""Ways out of what does not fit: few, cheap ones first, and every one of them true."""

from dataclasses import replace
from typing import Any

import pytest

from serve.errors import DoesNotFit
from serve.hardware import Machine, imagine
from serve.plan import Verdict, Wishes, judge, make_plan
from serve.plan.plan import Cure
from serve.shape import Geometry
from tests.plan.known import (
    GIB,
    LLAMA_8B,
    QWEN3_8B,
    QWEN3_235B_FP8,
    card,
    cpu,
    shape,
    subject,
    with_gpus,
)

AWQ = {
    "quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm",
}  # fmt: skip
ONE_4090 = imagine("RTX 4090")

# Flags that a cure may name → the wish and how its text is read.
READS: dict[str, tuple[str, Any]] = {
    "--gpu-memory-utilization": ("gpu_memory_utilization", float),
    "--max-num-batched-tokens": ("max_num_batched_tokens", int),
    "--max-num-seqs": ("max_num_seqs", int),
    "--kv-cache-dtype": ("kv_dtype", str),
    "--concurrency": ("concurrency", int),
    "--max-model-len": ("context_tokens", int),
    "--tensor-parallel-size": ("tensor_parallel", int),
    "--pipeline-parallel-size": ("pipeline_parallel", int),
    "--device": ("device", str),
}


def taken(
    cure: Cure, geometry: Geometry, machine: Machine, wishes: Wishes, **variants: Geometry
) -> Verdict:
    """The verdict after somebody has done what the cure says."""
    flags = list(cure.flags)
    if flags[:1] == ["--gpus"]:
        machine, flags = imagine(flags[1]), flags[2:]
        wishes = replace(wishes, available_kv_bytes=None)
    elif flags[:1] == ["--variant"] or len(flags) == 1:
        return judge(variants[flags[-1]], machine, wishes)
    elif not flags:
        return judge(geometry, machine, replace(wishes, kv_cache_bytes=None))
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        field, read = READS[flag]
        wishes = replace(wishes, **{field: read(value)})
    return judge(geometry, machine, wishes)


def cures_of(
    wishes: Wishes, machine: Machine = ONE_4090, config: dict[str, Any] = QWEN3_8B
) -> tuple[Cure, ...]:
    """Its cures, after a look that each of them is one."""
    geometry = shape(config)
    verdict = judge(geometry, machine, wishes)
    assert not verdict.estimate.fits and verdict.estimate.missing_bytes > 0
    assert 0 < len(verdict.cures) <= 3
    for cure in verdict.cures:
        assert cure.change and cure.price
        assert taken(cure, geometry, machine, wishes).estimate.fits, cure
    return verdict.cures


def test_what_fits_needs_no_cure() -> None:
    verdict = judge(shape(QWEN3_8B), imagine("H100"), Wishes())
    assert verdict.estimate.fits and verdict.cures == ()


def test_a_little_more_context_than_fits() -> None:
    cures = cures_of(Wishes(context_tokens=40960, is_strict=True))
    assert [cure.change for cure in cures[-2:]] == [
        "batches of 1,024 tokens and 32 sequences", "KV cache in fp8",
    ]  # fmt: skip


def test_batches_that_nobody_wished_are_made_smaller_without_a_word_of_cures() -> None:
    verdict = judge(shape(QWEN3_8B), ONE_4090, Wishes(context_tokens=40960))
    assert verdict.estimate.fits
    assert verdict.estimate.layout.max_num_seqs == 32
    assert verdict.notes[0] == (
        "batches are limited to 1,024 tokens and 32 sequences: activations for more do not fit"
    )


def test_fp8_keys_say_what_they_bring_and_cost() -> None:
    cures = cures_of(Wishes(context_tokens=40960, concurrency=1, gpu_memory_utilization=0.9))
    fp8 = next(cure for cure in cures if cure.change == "KV cache in fp8")
    assert fp8.flags == ("--kv-cache-dtype", "fp8")
    assert fp8.price == "2 × the context in the same memory, slight loss of quality"


def test_fewer_at_once_and_shorter_ones() -> None:
    ampere = imagine("RTX 3090")  # cannot read keys in fp8
    cures = cures_of(Wishes(context_tokens=16384, concurrency=16), ampere)
    assert [cure.flags[0] for cure in cures] == ["--concurrency", "--max-model-len", "--gpus"]
    assert "instead of 16 requests of full length at once" in cures[0].price
    assert "of the length that was asked for" in cures[1].price


def test_a_share_that_is_too_small_is_raised_first() -> None:
    cures = cures_of(Wishes(context_tokens=16384, gpu_memory_utilization=0.75))
    assert cures[0].flags[0] == "--gpu-memory-utilization"
    assert 0.75 < float(cures[0].flags[1]) <= 0.97


def test_a_share_that_is_not_free_is_lowered_first() -> None:
    busy = with_gpus(card(used_gib=20))
    cures = cures_of(Wishes(context_tokens=16384, gpu_memory_utilization=0.92), busy)
    assert cures[0].flags[0] == "--gpu-memory-utilization"
    assert float(cures[0].flags[1]) < 0.75


def test_batches_that_were_wished_too_large() -> None:
    wishes = Wishes(context_tokens=32768, max_num_seqs=4096, max_num_batched_tokens=32768)
    cures = cures_of(wishes, imagine("RTX 4090"))
    assert cures[0].flags[::2] == ("--max-num-batched-tokens", "--max-num-seqs")


def test_more_of_the_machines_own_cards() -> None:
    four = imagine("4x RTX 4090")
    cures = cures_of(Wishes(context_tokens=131072, tensor_parallel=1, pipeline_parallel=1), four,
                     LLAMA_8B)  # fmt: skip
    assert cures[0].flags[0] == "--tensor-parallel-size"
    assert cures[0].price == "2 cards instead of 1"


def test_weights_that_are_too_large_need_other_cards() -> None:
    cures = cures_of(Wishes(), imagine("2x H100"), QWEN3_235B_FP8)
    assert [cure.flags[0] for cure in cures] == ["--gpus", "--gpus"]
    assert cures[0].change == "4 × H100 SXM 80GB"
    assert cures[0].price == "2 more cards"


def test_a_variant_is_offered_with_its_size() -> None:
    awq = shape(LLAMA_8B | {"quantization_config": AWQ})
    small = imagine("RTX 4070 12GB")
    verdict = judge(shape(LLAMA_8B), small, Wishes(), "m", None, (("llama:awq", awq),))
    cure = verdict.cures[0]
    assert (cure.change, cure.flags) == ("the variant llama:awq", ("--variant", "awq"))
    assert "of weights on a card instead of 15.0 GiB" in cure.price
    assert taken(cure, shape(LLAMA_8B), small, Wishes(), awq=awq).estimate.fits


def test_the_variant_that_has_lost_least_comes_first() -> None:
    eight = shape(LLAMA_8B | {"quantization_config": {"quant_method": "fp8"}})
    four = shape(LLAMA_8B | {"quantization_config": AWQ})
    variants = (("awq", four), ("fp8", eight))
    verdict = judge(shape(LLAMA_8B), imagine("RTX 4070 12GB"), Wishes(), "m", None, variants)
    assert [cure.flags for cure in verdict.cures[:2]] == [("fp8",), ("awq",)]


def test_the_processor_beside_a_small_card() -> None:
    small = Machine(cpu(64), (card(0, 8, name="small"),))
    assert cures_of(Wishes(), small, LLAMA_8B)[-1].flags == ("--device", "cpu")


def test_a_kv_cache_of_the_wrong_size() -> None:
    wishes = Wishes(context_tokens=16384, kv_cache_bytes=2**20)
    cures = cures_of(wishes, imagine("H100"))
    assert cures[0] == Cure("leave the size of the KV cache to us", (), "nothing")


def test_memory_that_was_measured_by_hand_is_not_argued_with() -> None:
    """Only what the KV cache itself needs can change; other cards are another matter."""
    wishes = Wishes(context_tokens=40960, available_kv_bytes=4 * GIB)
    flags = [cure.flags[0] for cure in cures_of(wishes)]
    assert flags[0] == "--kv-cache-dtype" and "--gpu-memory-utilization" not in flags


def test_on_a_processor() -> None:
    verdict = judge(shape(LLAMA_8B), Machine(cpu(24)), Wishes(context_tokens=100_000))
    flags = [cure.flags[0] for cure in verdict.cures]
    assert flags == ["--max-model-len", "--kv-cache-dtype", "--gpus"]


def test_a_refusal_carries_its_cures() -> None:
    with pytest.raises(DoesNotFit) as caught:
        make_plan(
            subject(40960, 15),
            shape(QWEN3_8B),
            ONE_4090,
            Wishes(context_tokens=40960, concurrency=8),
        )
    assert 0 < len(caught.value.cures) <= 3
    assert all(change and price for change, price in caught.value.cures)


def test_more_cards_than_were_wished_to_be_used_say_how() -> None:
    wishes = Wishes(tensor_parallel=1, pipeline_parallel=1)
    cure = cures_of(wishes, imagine("H100"), QWEN3_235B_FP8)[0]
    assert cure.flags == ("--gpus", "4x H100 SXM 80GB", "--tensor-parallel-size", "4")


def test_where_no_card_alone_is_enough_several_of_the_largest_are_named() -> None:
    wishes = Wishes(context_tokens=40960, concurrency=100, max_num_seqs=128)
    cures = cures_of(wishes, imagine("RTX 3060"), QWEN3_235B_FP8)
    assert [cure.flags[0] for cure in cures][-1] == "--gpus"
    assert int(cures[-1].change.split()[0]) > 1


def test_a_machine_without_gpus_is_told_of_one_that_would_do() -> None:
    verdict = judge(shape(LLAMA_8B), Machine(cpu(8)), Wishes())
    assert verdict.cures[-1].flags[0] == "--gpus"
    assert verdict.cures[-1].price.startswith("1 card of ")


def test_a_length_that_only_a_running_engine_proves_is_asked_of_no_other_card() -> None:
    wishes = Wishes(context_tokens=50_000, available_kv_bytes=1 * GIB, is_strict=True)
    found = cures_of(wishes)  # 40,960 is what the model allows
    assert not any("--gpus" in cure.flags for cure in found)
    allowed = cures_of(replace(wishes, context_tokens=40_960))
    assert any("--gpus" in cure.flags for cure in allowed)
