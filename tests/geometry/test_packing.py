"""Bytes of quantised matrices, and which modules a checkpoint leaves in 16 bit."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import BadFile
from serve.geometry import read_geometry, weights_per_stage
from serve.geometry.packing import is_skipped, packed_bytes
from serve.shape import Parallel, Quant
from tests.geometry.test_weights import QWEN3_30B, QWEN25_7B

FP8 = Quant("fp8", 8)


@pytest.mark.parametrize(
    ("quant", "expected"),
    [
        # One float32 for all, one per square of 128, one 16-bit number per output and 128 inputs.
        (FP8, 4096 * 14336 + 4),
        (replace(FP8, block=(128, 128)), 4096 * 14336 + 4 * 32 * 112),
        (Quant("awq", 4, 128, has_zero_points=True), 4096 * 14336 // 2 + 4096 * 112 * 5 // 2),
        (Quant("gptq", 4, 128), 4096 * 14336 // 2 + 4096 * 112 * 2),
        (Quant("gptq", 8, 128), 4096 * 14336 + 4096 * 112 * 2),
        (Quant("compressed-tensors", 4, 32), 4096 * 14336 // 2 + 4096 * 448 * 2),
        (Quant("compressed-tensors", 8), 4096 * 14336 + 4096 * 4),
        (Quant("int8", 8), 4096 * 14336 + 4096 * 4),
        (Quant("mxfp4", 4, 32), 4096 * 14336 * 17 // 32),
    ],
)  # fmt: skip
def test_bytes_of_a_matrix(quant: Quant, expected: int) -> None:
    assert packed_bytes(4096, 14336, quant) == expected


def test_a_square_that_is_not_full_has_a_scale_too() -> None:
    assert packed_bytes(130, 100, replace(FP8, block=(128, 128))) == 130 * 100 + 2 * 4


@pytest.mark.parametrize(
    ("skips", "name", "expected"),
    [
        (("lm_head",), "model.layers.0.mlp.gate_proj", False),
        # MiniMax lists "gate", its router: that is not "gate_proj".
        (("gate",), "model.layers.0.mlp.gate_proj", False),
        (("gate",), "model.layers.0.block_sparse_moe.gate", True),
        (("mlp.gate.",), "model.layers.0.mlp.gate", True),
        (("self_attn",), "model.layers.3.self_attn.q_proj", True),
        (("model.layers.1.mlp.down_proj",), "model.layers.1.mlp.down_proj", True),
        (("model.layers.1.mlp.down_proj",), "model.layers.11.mlp.down_proj", False),
        (("model.layers.*.self_attn",), "model.layers.7.self_attn.o_proj", True),
        (("model.layers.*.self_attn",), "model.layers.7.mlp.o_proj", False),
        (("re:.*self_attn.*",), "model.layers.7.self_attn.o_proj", True),
        (("re:.*mlp\\.(gate|up|gate_up|down)_proj.*",), "model.layers.0.mlp.up_proj", True),
        (("re:.*mlp\\.(gate|up|gate_up|down)_proj.*",),
         "model.layers.0.mlp.experts.up_proj", False),
        (("", "."), "model.layers.0.mlp.up_proj", False),
    ],
)  # fmt: skip
def test_what_is_left_in_16_bit(skips: tuple[str, ...], name: str, expected: bool) -> None:
    assert is_skipped(name, replace(FP8, skips=skips)) is expected


@pytest.mark.parametrize("pattern", ["re:[", "re:(a+)+b", "re:(x*){9}", "*" * 30, "re:" + ".*" * 9])
def test_patterns_that_are_none_or_could_take_for_ever_are_refused(pattern: str) -> None:
    quant = {"quant_method": "compressed-tensors", "ignore": [pattern], "config_groups": {
        "g": {"weights": {"num_bits": 4, "group_size": 32, "symmetric": True, "type": "int"}},
    }}  # fmt: skip
    with pytest.raises(BadFile, match="quantization_config"):
        read_geometry(QWEN3_30B | {"quantization_config": quant})


@given(st.text(max_size=40), st.text(max_size=60))
def test_any_pattern_is_answered_or_refused(pattern: str, name: str) -> None:
    try:
        assert is_skipped(name, replace(FP8, skips=(pattern,))) in (True, False)
    except BadFile as error:
        assert "quantization_config" in error.problem


@pytest.mark.parametrize(
    ("quant", "share"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 0.57),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 0.37),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128, "sym": True}, 0.58),
    ],
)  # fmt: skip
def test_embeddings_and_output_layer_stay_in_16_bit(quant: dict[str, Any], share: float) -> None:
    whole = weights_per_stage(read_geometry(QWEN25_7B), Parallel())[0]
    packed = weights_per_stage(
        read_geometry(QWEN25_7B | {"quantization_config": quant}), Parallel()
    )[0]
    assert packed / whole == pytest.approx(share, abs=0.01)
