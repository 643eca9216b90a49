"""config.json → how the weights are packed, and what the KV cache shall be."""

from typing import Any

import pytest

from serve.errors import BadFile, SettingsError
from serve.geometry.config import read_shape
from serve.shape import Geometry, Quant
from tests.geometry.samples import FOLDER, LLAMA, NESTED, NO_FACTS, published

needs_facts = pytest.mark.skipif(not FOLDER.is_dir(), reason=NO_FACTS)


def packed(**table: Any) -> Geometry:
    return read_shape(LLAMA | {"quantization_config": table})


def compressed(weights: dict[str, Any], **more: Any) -> Geometry:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return packed(quant_method="compressed-tensors", config_groups=groups, **more)


INT4 = {"num_bits": 4, "type": "int", "group_size": 32, "symmetric": True}
FLOAT8 = {"num_bits": 8, "type": "float", "strategy": "channel", "group_size": None}
FLOAT4 = {"num_bits": 4, "type": "float"}


@pytest.mark.parametrize(
    ("table", "quant"),
    [
        ({"quant_method": "fp8", "fmt": "e4m3"}, Quant("fp8", 8)),
        ({"quant_method": "fp8", "weight_block_size": [128, 64],
          "modules_to_not_convert": ["lm_head"]}, Quant("fp8", 8, 0, (128, 64), ("lm_head",))),
        ({"quant_method": "fbgemm_fp8"}, Quant("fp8", 8)),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
         Quant("awq", 4, 128, has_zero_points=True)),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": True,
          "modules_to_not_convert": None}, Quant("awq", 4, 64, has_zero_points=True)),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1, "sym": True}, Quant("gptq", 8)),
        ({"quant_method": "GPTQ", "bits": 4, "group_size": 128, "sym": False},
         Quant("gptq", 4, 128, has_zero_points=True)),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"-:.*attn.*": {}}},
         Quant("gptq", 4, 128, skips=("re:.*attn.*",))),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
         Quant("mxfp4", 4, 32, skips=("lm_head",))),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, Quant("fp8", 8)),
        ({"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}, Quant("fp8", 8, 0, (128, 128))),
        ({"quant_method": "modelopt", "quantization": {
            "quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}},
         Quant("nvfp4", 4, 16, skips=("lm_head",))),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}},
         Quant("fp8", 8)),
        ({"quant_method": "modelopt_fp4", "ignore": ["lm_head"]},
         Quant("nvfp4", 4, 16, skips=("lm_head",))),
    ],
)  # fmt: skip
def test_methods(table: dict[str, Any], quant: Quant) -> None:
    assert packed(**table).quant == quant


@pytest.mark.parametrize(
    ("weights", "form", "quant"),
    [
        (INT4, "pack-quantized", Quant("compressed-tensors", 4, 32)),
        (INT4 | {"symmetric": False}, "pack-quantized",
         Quant("compressed-tensors", 4, 32, has_zero_points=True)),
        (FLOAT8, "float-quantized", Quant("fp8", 8)),
        (FLOAT8 | {"block_structure": [128, 128]}, "float-quantized",
         Quant("fp8", 8, 0, (128, 128))),
        ({"num_bits": 8, "type": "int"}, "int-quantized", Quant("int8", 8)),
        (FLOAT4, "mxfp4-pack-quantized", Quant("mxfp4", 4, 32)),
        (FLOAT4 | {"group_size": 16}, "nvfp4-pack-quantized", Quant("nvfp4", 4, 16)),
    ],
)  # fmt: skip
def test_compressed_tensors(weights: dict[str, Any], form: str, quant: Quant) -> None:
    assert compressed(weights, format=form).quant == quant


@needs_facts
@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("deepseek-ai__DeepSeek-V3", Quant("fp8", 8, 0, (128, 128))),
        ("MiniMaxAI__MiniMax-M2", Quant("fp8", 8, 0, (128, 128), ("gate", "e_score_correction_bias",
                                                                 "lm_head"))),
        ("Qwen__Qwen3-8B", None),
    ],
)  # fmt: skip
def test_published_files(name: str, quant: Quant | None) -> None:
    assert read_shape(published(name)).quant == quant


@needs_facts
def test_published_files_that_leave_modules_out() -> None:
    kimi = read_shape(published("moonshotai__Kimi-K2.5")).quant  # inside text_config
    assert kimi is not None and (kimi.method, kimi.bits, kimi.group) == (
        "compressed-tensors", 4, 32,
    )  # fmt: skip
    assert "re:.*self_attn.*" in kimi.skips
    oss = read_shape(published("openai__gpt-oss-20b")).quant
    assert oss is not None and (oss.method, oss.group) == ("mxfp4", 32)
    assert "model.layers.*.self_attn" in oss.skips


def test_a_packing_beside_a_nested_model() -> None:
    config = NESTED | {"quantization_config": {"quant_method": "fp8"}}
    assert read_shape(config).quant == Quant("fp8", 8)


@pytest.mark.parametrize(
    ("table", "kv_dtype"),
    [
        ({"quant_method": "fp8"}, None),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": None}, None),
        ({"quant_method": "modelopt", "quant_algo": "FP8",
          "kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False}}, "fp8"),
        # The engine takes it from two libraries only.
        ({"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}, None),
    ],
)  # fmt: skip
def test_the_kv_cache_that_a_checkpoint_asks_for(
    table: dict[str, Any], kv_dtype: str | None
) -> None:
    assert packed(**table).kv_dtype == kv_dtype


def test_the_kv_cache_of_compressed_tensors() -> None:
    scheme = {"num_bits": 8, "type": "float"}
    assert compressed(FLOAT8, kv_cache_scheme=scheme).kv_dtype == "fp8"
    assert compressed(FLOAT8, kv_cache_scheme=None).kv_dtype is None


@pytest.mark.parametrize(
    ("wished", "quant"),
    [
        ("awq", Quant("awq", 4, 128, has_zero_points=True)),
        ("awq_marlin", Quant("awq", 4, 128, has_zero_points=True)),
        ("gptq", Quant("gptq", 4, 128)),
        ("fp8", Quant("fp8", 8)),
        ("fp8_per_block", Quant("fp8", 8, 0, (128, 128))),
        ("compressed-tensors", Quant("compressed-tensors", 4, 128)),
    ],
)
def test_a_wish_is_assumed_where_the_file_names_no_packing(wished: str, quant: Quant) -> None:
    geometry = read_shape(LLAMA, quantization=wished)
    assert geometry.quant == quant and len(geometry.notes) == 1


def test_a_wish_that_says_what_the_file_says() -> None:
    config = LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 64}}
    geometry = read_shape(config, quantization="gptq_marlin")
    assert geometry.quant == Quant("gptq", 4, 64) and geometry.notes == ()


def test_a_wish_that_the_file_contradicts_is_of_other_weights() -> None:
    config = LLAMA | {"quantization_config": {"quant_method": "fp8"}}
    geometry = read_shape(config, quantization="awq")
    assert geometry.quant == Quant("awq", 4, 128, has_zero_points=True)
    assert geometry.notes == ("config.json says fp8; planned for weights that are packed as awq",)


@pytest.mark.parametrize("wished", ["nonsense", ""])
def test_an_impossible_wish(wished: str) -> None:
    config = LLAMA | {"quantization_config": {"quant_method": "fp8"}}
    with pytest.raises(SettingsError) as caught:
        read_shape(config, quantization=wished)
    assert caught.value.key == "quantization" and caught.value.suggestion


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({}, "quant_method: is missing"),
        ({"quant_method": "bitsandbytes"}, "quant_method: cannot be planned: bitsandbytes"),
        ({"quant_method": 8}, "quant_method: must be a text"),
        ({"quant_method": "awq", "group_size": 128}, "bits: is missing"),
        ({"quant_method": "awq", "bits": 5, "group_size": 128}, "bits: cannot be planned: 5 bits"),
        ({"quant_method": "gptq", "bits": 4, "group_size": -2}, "group_size: must be from"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"+:.*": {"bits": 8}}}, "dynamic: cannot"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size: must be two"),
        ({"quant_method": "fp8", "weight_block_size": [128, 0]}, "weight_block_size: must be two"),
        ({"quant_method": "fp8", "weight_block_size": 128}, "weight_block_size: must be a list"),
        ({"quant_method": "fp8", "ignored_layers": [1]}, r"ignored_layers\[0\]: must be a text"),
        ({"quant_method": "compressed-tensors"}, "config_groups: is missing"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {}}}, "no weights"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8"}, "quant_algo: cannot be planned: W4A8"),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "NVFP4"},
         "kv_cache_quant_algo: cannot be planned: nvfp4"),
    ],
)  # fmt: skip
def test_packings_that_cannot_be_read(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadFile, match=problem):
        packed(**table)


def test_compressed_tensors_that_cannot_be_read() -> None:
    with pytest.raises(BadFile, match="format: cannot be planned: marlin-24"):
        compressed(INT4, format="marlin-24")
    with pytest.raises(BadFile, match="kv_cache_scheme: cannot be planned"):
        compressed(INT4, format="pack-quantized", kv_cache_scheme={"num_bits": 4, "type": "float"})
    groups = {"group_0": {"weights": INT4}, "group_1": {"weights": FLOAT8}}
    with pytest.raises(BadFile, match="config_groups: cannot be planned: several packings"):
        packed(quant_method="compressed-tensors", config_groups=groups, format="pack-quantized")
