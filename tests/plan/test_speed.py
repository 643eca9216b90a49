"""Upper limits of speed, against sums made by hand from data sheets."""

from dataclasses import replace
from typing import Any

import pytest

from serve.hardware import Gpu, imagine
from serve.plan.plan import Speed
from serve.plan.speed import speed, speed_cpu
from serve.plan.work import Look, work_per_stage
from serve.shape import Parallel
from tests.plan import known
from tests.plan.kv_models import DELTA, MLA, SPARSE, WINDOW, layout, model

LLAMA = known.shape(known.LLAMA_8B)
QWEN = known.shape(known.QWEN3_235B_FP8)
# 32 layers of 4096 × (4096 + 2 × 1024 + 4096) and 3 × 4096 × 14336 numbers, and the output layer.
LAYERS = 32 * (4096 * (2 * 4096 + 2 * 1024) + 3 * 4096 * 14336)
HEAD = 128256 * 4096
BANDWIDTH, FLOPS = 3.35e12, 989.4e12  # H100 SXM


def limits(gpus: str, context: int = 1024, streams: int = 16, **changes: Any) -> Speed:
    cards = imagine(gpus).gpus
    parallel = changes.pop("parallel", Parallel(tensor=len(cards)))
    asked = replace(layout(context_tokens=context), parallel=parallel)
    found = speed(changes.pop("geometry", LLAMA), cards, replace(asked, **changes), streams)
    assert found is not None
    return found


def test_one_stream_reads_all_weights_for_each_token() -> None:
    read = 2 * (LAYERS + HEAD) + 1024 * 131072
    assert limits("H100").decode_tokens_s == pytest.approx(BANDWIDTH / read, rel=0.01)


def test_streams_share_the_weights_but_not_the_cache() -> None:
    read = 2 * (LAYERS + HEAD) + 16 * 1024 * 131072
    found = limits("H100")
    assert found.streams == 16
    assert found.decode_tokens_s_all == pytest.approx(16 * BANDWIDTH / read, rel=0.01)


def test_very_many_streams_are_limited_by_operations() -> None:
    found = limits("H100", context=1, streams=4096)
    assert found.decode_tokens_s_all == pytest.approx(FLOPS / 2 / (LAYERS + HEAD), rel=0.01)


def test_prompts_are_limited_by_operations() -> None:
    """Each token meets half of the context: 4 × 4096 operations for each of them and layer."""
    found = limits("H100", context=8192)
    needed = 2 * LAYERS + 32 * 4 * 4096 * 4096
    assert found.prefill_tokens_s == pytest.approx(FLOPS / needed, rel=0.01)


def test_small_batches_of_prompts_are_limited_by_bandwidth() -> None:
    found = limits("H100", max_num_batched_tokens=16)
    assert found.prefill_tokens_s == pytest.approx(16 * BANDWIDTH / 2 / (LAYERS + HEAD), rel=0.02)


def test_longer_contexts_are_slower() -> None:
    short, long = limits("H100", context=1024), limits("H100", context=131072)
    assert long.decode_tokens_s < short.decode_tokens_s
    assert long.decode_tokens_s_all < short.decode_tokens_s_all
    assert long.prefill_tokens_s < short.prefill_tokens_s


def test_fp8_halves_the_cache_that_is_read() -> None:
    plain, fp8 = (limits("H100", 131072, kv_dtype=kind) for kind in ("auto", "fp8"))
    gain = 1 / plain.decode_tokens_s - 1 / fp8.decode_tokens_s
    assert gain == pytest.approx(131072 * 65536 / BANDWIDTH, rel=0.01)


def test_tensor_ranks_work_at_the_same_token() -> None:
    one, two = limits("H100"), limits("2x H100")
    assert two.decode_tokens_s == pytest.approx(2 * one.decode_tokens_s, rel=0.01)
    assert two.prefill_tokens_s == pytest.approx(2 * one.prefill_tokens_s, rel=0.01)


def test_stages_work_at_different_tokens() -> None:
    """Alone a stream passes one stage after the other; many keep all stages busy."""
    one, two = limits("H100"), limits("2x H100", parallel=Parallel(pipeline=2))
    assert two.decode_tokens_s == pytest.approx(one.decode_tokens_s, rel=0.01)
    half = limits("H100", streams=8).decode_tokens_s_all
    assert two.decode_tokens_s_all == pytest.approx(2 * half, rel=0.1)
    assert one.prefill_tokens_s < two.prefill_tokens_s < 2.01 * one.prefill_tokens_s


def test_replicas_serve_their_own_streams() -> None:
    one, two = limits("H100", streams=8), limits("2x H100", parallel=Parallel(data=2))
    assert two.decode_tokens_s == pytest.approx(one.decode_tokens_s)
    assert two.decode_tokens_s_all == pytest.approx(2 * one.decode_tokens_s_all)
    assert two.prefill_tokens_s == pytest.approx(2 * one.prefill_tokens_s)


def test_the_slowest_card_sets_the_pace() -> None:
    mixed, slow = limits("1x H100 + 1x L40S"), limits("2x L40S")
    assert mixed == slow


def test_one_token_reads_the_experts_that_it_takes() -> None:
    """8 of 128 experts: about 22 of 235 GB, but nearly all with many streams."""
    found = limits("4x H200", geometry=QWEN, streams=256)
    work = work_per_stage(QWEN, Parallel(4), 2)[0]
    assert work.share == 8 / 128
    read = work.dense_bytes + work.expert_bytes / 16 + 1024 * 48128
    assert found.decode_tokens_s == pytest.approx(4.8e12 / read, rel=0.01)
    assert 16 < found.decode_tokens_s_all / found.decode_tokens_s < 40


@pytest.mark.parametrize(("gpus", "factor"), [("H100", 2.0), ("A100", 1.0)])
def test_fp8_weights_are_multiplied_in_fp8_where_there_are_units(gpus: str, factor: float) -> None:
    (gpu,) = imagine(gpus).gpus
    assert gpu.known is not None
    plain = gpu.known.flops_of("fp16")
    work = work_per_stage(QWEN, Parallel(), 2)[0]
    assert plain is not None
    found = limits(gpus, 1, geometry=QWEN, max_num_batched_tokens=2**20)
    assert found.prefill_tokens_s == pytest.approx(factor * plain / work.flops, rel=0.02)


def test_an_unknown_card_has_no_speed() -> None:
    asked = layout(tensor=2)
    assert speed(LLAMA, (known.card(),), layout(), 1) is None
    assert speed(LLAMA, (known.card(), *imagine("H100").gpus), asked, 1) is None


def test_a_card_that_cannot_multiply_has_no_speed() -> None:
    (gpu,) = imagine("H100").gpus
    assert gpu.known is not None
    mute: Gpu = replace(gpu, known=replace(gpu.known, flops=()))
    assert speed(LLAMA, (mute,), layout(), 1) is None


def test_a_processor_is_as_fast_as_its_memory() -> None:
    small = known.shape(known.SMOLLM2)
    asked = layout(context_tokens=1024)
    found = speed_cpu(small, known.cpu(bandwidth=20 * 10**9), asked, 4)
    assert found is not None
    assert found.decode_tokens_s == pytest.approx(20e9 / (2 * 134.5e6 + 1024 * 23040), rel=0.02)
    assert found.prefill_tokens_s == 0
    assert speed_cpu(small, known.cpu(), asked, 4) is None


def test_windows_and_states_do_not_grow() -> None:
    parallel = Parallel()
    sliding = work_per_stage(model(WINDOW, WINDOW), parallel, 2)[0]
    assert sliding.looks == (Look(128, 2 * 8 * 128 * 2, 2 * 2 * 64 * 128),)
    states = work_per_stage(model(DELTA), Parallel(2), 2)[0]
    assert states.looks == ()
    assert states.state_bytes == 32 * 128 * 128 * 4 / 2


def test_latent_attention_reads_one_vector_on_every_rank() -> None:
    alone, many = (work_per_stage(model(MLA), Parallel(ranks), 2)[0] for ranks in (1, 8))
    shared = work_per_stage(model(MLA), Parallel(8, decode_context=8), 2)[0]
    assert alone.looks[0].n_bytes == many.looks[0].n_bytes == 576 * 2
    assert shared.looks[0].n_bytes == 576 * 2 / 8


def test_sparse_attention_reads_its_choice_and_the_index() -> None:
    chosen, index = work_per_stage(model(SPARSE), Parallel(), 2)[0].looks
    assert (chosen.limit, index.limit) == (2048, None)
    assert index.n_bytes == 132


def test_an_embedding_is_looked_up_not_read() -> None:
    """A tied one is read: as output layer, by the last stage."""
    tied = known.shape(known.SMOLLM2)
    first, last = work_per_stage(tied, Parallel(pipeline=2), 2)
    assert last.dense_bytes - first.dense_bytes == pytest.approx(2 * 49152 * 576, rel=0.01)
    assert last.head_flops == 2 * 49152 * 576
    assert first.head_flops == 0
