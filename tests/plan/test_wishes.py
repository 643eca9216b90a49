"""Impossible wishes are refused with the flag's name, what is wrong, and what would do."""

from typing import Any

import pytest

from serve.errors import SettingsError
from serve.hardware import Machine, imagine
from serve.plan import Wishes, judge, make_plan
from tests.plan.known import (
    CHATGLM_9B,
    DEEPSEEK_V2_LITE,
    LLAMA_8B,
    QWEN3_8B,
    QWEN3_235B_FP8,
    card,
    cpu,
    shape,
    subject,
    with_gpus,
)

H100 = imagine("8x H100")


def refused(
    wishes: Wishes, machine: Machine = H100, config: dict[str, Any] = QWEN3_8B
) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        judge(shape(config), machine, wishes, "m")
    assert caught.value.place == "plan"
    return caught.value


@pytest.mark.parametrize(
    ("wishes", "key"),
    [
        (Wishes(context_tokens=0), "context"),
        (Wishes(context_tokens=-5), "context"),
        (Wishes(context_tokens=10**12), "context"),
        (Wishes(concurrency=0), "concurrency"),
        (Wishes(concurrency=-1), "concurrency"),
        (Wishes(tensor_parallel=0), "tensor-parallel-size"),
        (Wishes(tensor_parallel=3), "tensor-parallel-size"),
        (Wishes(tensor_parallel=16), "tensor-parallel-size"),
        (Wishes(pipeline_parallel=0), "pipeline-parallel-size"),
        (Wishes(pipeline_parallel=37), "pipeline-parallel-size"),
        (Wishes(pipeline_parallel=9), "pipeline-parallel-size"),
        (Wishes(data_parallel=9), "data-parallel-size"),
        (Wishes(tensor_parallel=4, data_parallel=4), "tensor-parallel-size"),
        (Wishes(max_num_seqs=0), "max-num-seqs"),
        (Wishes(max_num_batched_tokens=0), "max-num-batched-tokens"),
        (Wishes(max_num_batched_tokens=8, max_num_seqs=9), "max-num-batched-tokens"),
        (Wishes(concurrency=9, max_num_seqs=8), "concurrency"),
        (Wishes(block_tokens=0), "block-size"),
        (Wishes(kv_cache_bytes=-1), "kv-cache-memory-bytes"),
        (Wishes(gpu_memory_utilization=0.0), "gpu-memory-utilization"),
        (Wishes(gpu_memory_utilization=1.01), "gpu-memory-utilization"),
        (Wishes(gpu_memory_utilization=float("nan")), "gpu-memory-utilization"),
        (Wishes(kv_dtype="fp9"), "kv-cache-dtype"),
        (Wishes(dtype="int7"), "dtype"),
        (Wishes(engine_version="new"), "engine-version"),
        (Wishes(context_tokens=40961, is_strict=True), "context"),
    ],
)
def test_impossible_wishes(wishes: Wishes, key: str) -> None:
    assert refused(wishes).key == key


def test_a_rank_count_that_does_not_divide_says_what_does() -> None:
    error = refused(Wishes(tensor_parallel=3))
    assert error.problem == "3 does not divide the model's 32 attention heads"
    assert error.suggestion == "one of 1, 2, 4, 8"


def test_more_ranks_than_cards_says_how_many_there_are() -> None:
    error = refused(Wishes(tensor_parallel=4), imagine("2x H100"))
    assert error.problem == "4 ranks need as many cards; there are 2 cards"


def test_fp8_blocks_limit_tensor_parallel() -> None:
    wishes = Wishes(tensor_parallel=8, is_expert_parallel=False, engine_version="0.28")
    assert refused(wishes, config=QWEN3_235B_FP8).suggestion == "one of 1, 2, 4"


def test_slices_are_never_joined() -> None:
    slices = with_gpus(card(0, 40, is_slice=True), card(0, 40, is_slice=True))
    assert refused(Wishes(tensor_parallel=2), slices).key == "tensor-parallel-size"


def test_ranks_on_a_processor_need_numa_nodes() -> None:
    error = refused(Wishes("cpu", tensor_parallel=2), Machine(cpu()))
    assert error.problem == "2 ranks need as many NUMA nodes; there are 1 NUMA node"


@pytest.mark.parametrize(
    ("config", "tensor", "size", "is_possible"),
    [
        (DEEPSEEK_V2_LITE, 4, 4, True),
        (DEEPSEEK_V2_LITE, 4, 3, False),
        (CHATGLM_9B, 8, 4, True),
        (CHATGLM_9B, 8, 8, False),
        (QWEN3_8B, 8, 2, False),
    ],
)
def test_context_parallel_ranks_are_those_that_hold_copies(
    config: dict[str, Any], tensor: int, size: int, is_possible: bool
) -> None:
    wishes = Wishes(tensor_parallel=tensor, decode_context_parallel=size)
    if is_possible:
        assert judge(shape(config), H100, wishes).estimate.layout.parallel.decode_context == size
    else:
        assert refused(wishes, config=config).key == "decode-context-parallel-size"


@pytest.mark.parametrize(
    ("capability", "wishes", "config", "what"),
    [
        ((7, 0), Wishes(), QWEN3_8B, "vLLM needs 7.5"),
        ((7, 5), Wishes(dtype="bfloat16"), QWEN3_8B, "bfloat16 needs 8.0"),
        ((7, 5), Wishes(kv_dtype="fp8"), QWEN3_8B, "a KV cache in fp8 needs 8.0"),
        ((8, 0), Wishes(kv_dtype="fp8"), DEEPSEEK_V2_LITE, "a KV cache in fp8 needs 8.9"),
    ],
)
def test_what_a_card_cannot_compute(
    capability: tuple[int, int], wishes: Wishes, config: dict[str, Any], what: str
) -> None:
    old = with_gpus(card(compute_capability=capability, name="Old One"))
    error = refused(wishes, old, config)
    assert error.key == "gpus"
    assert error.problem == (
        f"Old One has compute capability {capability[0]}.{capability[1]}; {what}"
    )


def test_cards_that_cannot_are_left_out() -> None:
    both = with_gpus(card(0, compute_capability=(7, 0)), card(1, used_gib=40))
    assert make_plan(subject(8192, 15), shape(LLAMA_8B), both, Wishes()).gpus == (1,)


def test_a_device_that_is_not_there() -> None:
    assert refused(Wishes("cuda"), Machine(cpu())).problem == "no NVIDIA GPU was found"
    lost = Machine(cpu(), gpu_problem="GPU 0: GPU is lost")
    assert refused(Wishes("cuda"), lost).problem == "GPU 0: GPU is lost"
    assert refused(Wishes("cpu")).key == "gpus"  # an imagined machine has no processor


def test_a_config_without_a_length_needs_a_wish() -> None:
    nameless = {key: value for key, value in LLAMA_8B.items() if key != "max_position_embeddings"}
    assert refused(Wishes(), config=nameless).key == "context"
    assert judge(shape(nameless), H100, Wishes(context_tokens=4096)).estimate.fits
