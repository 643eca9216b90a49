"""Which layouts a model can be cut into, and what is said of those that it cannot."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.geometry import read_geometry, weights_per_stage
from serve.geometry.weights import is_divisible
from serve.shape import Parallel
from tests.geometry.test_weights import (
    CONFIGS,
    GPT_OSS_20B,
    LLAMA_8B,
    QWEN3_30B,
    QWEN25_7B,
    V2_LITE,
)

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}
QWEN3_235B: dict[str, Any] = QWEN3_30B | {
    "num_hidden_layers": 94, "num_attention_heads": 64, "num_key_value_heads": 4,
    "hidden_size": 4096, "moe_intermediate_size": 1536,
}  # fmt: skip
QWEN25_72B: dict[str, Any] = QWEN25_7B | {
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
    "hidden_size": 8192, "intermediate_size": 29568,
}  # fmt: skip


def with_quant(config: dict[str, Any], quant: dict[str, Any]) -> dict[str, Any]:
    return config | {"quantization_config": quant}


@pytest.mark.parametrize(
    ("config", "parallel"),
    [
        (LLAMA_8B, Parallel(8)), (LLAMA_8B, Parallel(4, 8)), (QWEN25_7B, Parallel(4)),
        (QWEN25_7B, Parallel(1, 28)),
        (QWEN3_30B, Parallel(8)), (QWEN3_30B, Parallel(16)), (V2_LITE, Parallel(16)),
        (GPT_OSS_20B, Parallel(8)), (QWEN3_30B, Parallel(4, data=8, is_expert=True)),
        (with_quant(QWEN3_235B, FP8), Parallel(4)),
        (with_quant(QWEN3_235B, FP8), Parallel(8, is_expert=True)),
        # Since 0.29 the scales of cut blocks are repeated for smaller ones.
        (with_quant(QWEN3_235B, FP8), Parallel(8)),
        (with_quant(QWEN25_7B, AWQ), Parallel(4)),
        (with_quant(QWEN25_72B | {"intermediate_size": 29696}, GPTQ), Parallel(8)),
    ],
)  # fmt: skip
def test_what_divides(config: dict[str, Any], parallel: Parallel) -> None:
    assert is_divisible(read_geometry(config), parallel) is None


@pytest.mark.parametrize(
    ("config", "parallel", "said"),
    [
        (LLAMA_8B, Parallel(3), "3 does not divide the model's 32 attention heads"),
        (LLAMA_8B, Parallel(1, 33), "33 stages are more than the model's 32 layers"),
        (QWEN25_7B, Parallel(8), "8 does not divide the model's 28 attention heads"),
        (QWEN25_7B, Parallel(7), "7 ranks cannot share 4 KV heads evenly"),
        (QWEN3_30B, Parallel(8, data=5), "40 does not divide the width of one expert, 768"),
        (LLAMA_8B | {"intermediate_size": 14340}, Parallel(8), "feed-forward width, 14340"),
        (LLAMA_8B | {"num_attention_heads": 40, "num_key_value_heads": 5, "head_dim": 128,
                     "intermediate_size": 14400}, Parallel(5),
         "5 does not divide the vocabulary's 128256 rows"),
        (with_quant(QWEN25_72B, GPTQ), Parallel(2),
         "2 ranks cut mlp.down_proj into 14784, not a multiple of the 128 weights"),
        (with_quant(QWEN25_7B, AWQ), Parallel(14), "KV heads"),
        (QWEN3_30B, Parallel(16, data=16, is_expert=True), "256 ranks are more than"),
    ],
)  # fmt: skip
def test_what_does_not(config: dict[str, Any], parallel: Parallel, said: str) -> None:
    reason = is_divisible(read_geometry(config), parallel)
    assert reason is not None
    assert said in reason


def test_fp8_blocks_could_not_be_cut_before_0_29() -> None:
    geometry = read_geometry(with_quant(QWEN3_235B, FP8))
    reason = is_divisible(geometry, Parallel(8), (0, 28))
    assert reason is not None
    assert "mlp.experts.down_proj into 192" in reason
    assert is_divisible(geometry, Parallel(4), (0, 28)) is None


def test_what_stays_in_16_bit_may_be_cut_anywhere() -> None:
    assert is_divisible(read_geometry(QWEN25_72B), Parallel(2)) is None
    awq = with_quant(QWEN25_72B, AWQ | {"modules_to_not_convert": ["mlp.down_proj"]})
    assert is_divisible(read_geometry(awq), Parallel(2)) is None


@given(
    st.sampled_from(CONFIGS), st.integers(1, 64), st.integers(1, 64), st.integers(1, 8),
    st.booleans(),
)  # fmt: skip
def test_every_layout_is_answered(
    config: dict[str, Any], tensor: int, pipeline: int, data: int, is_expert: bool
) -> None:
    geometry = read_geometry(config)
    parallel = Parallel(tensor, pipeline, data, is_expert=is_expert)
    reason = is_divisible(geometry, parallel)
    if reason is None:
        assert len(weights_per_stage(geometry, parallel)) == pipeline
    else:
        assert reason.isprintable()
