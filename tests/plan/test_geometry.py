"""Shapes out of config.json, and what one token costs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.catalog import load_catalog
from serve.errors import UnsafeWeights
from serve.plan.geometry import Geometry, read_geometry
from tests.plan.known import (
    CHATGLM_9B,
    DEEPSEEK_V2_LITE,
    FACTS,
    LLAMA_8B,
    QWEN3_8B,
    QWEN3_235B_FP8,
    QWEN25_7B,
)


def gqa(layers: int, kv_heads: int, head_dim: int) -> Geometry:
    return read_geometry(
        QWEN3_8B
        | {"num_hidden_layers": layers, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    )


# Check values computed from vLLM 0.32's v1/kv_cache_interface.py, bf16, for TP 1, 2, 4 and 8.
@pytest.mark.parametrize(
    ("layers", "kv_heads", "head_dim", "expected"),
    [
        pytest.param(24, 2, 64, (12288, 6144, 6144, 6144), id="Qwen2.5-0.5B"),
        pytest.param(28, 4, 128, (57344, 28672, 14336, 14336), id="Qwen2.5-7B"),
        pytest.param(36, 8, 128, (147456, 73728, 36864, 18432), id="Qwen3-8B"),
        pytest.param(64, 8, 128, (262144, 131072, 65536, 32768), id="Qwen3-32B"),
        pytest.param(32, 8, 128, (131072, 65536, 32768, 16384), id="Llama-3.1-8B"),
        pytest.param(40, 2, 128, (40960, 20480, 20480, 20480), id="GLM-4-9B"),
        pytest.param(32, 4, 128, (65536, 32768, 16384, 16384), id="Yi-1.5-6B"),
        pytest.param(48, 4, 128, (98304, 49152, 24576, 24576), id="Yi-1.5-9B"),
        pytest.param(60, 8, 128, (245760, 122880, 61440, 30720), id="Yi-1.5-34B"),
    ],
)
def test_kv_bytes_per_token_and_rank(
    layers: int, kv_heads: int, head_dim: int, expected: tuple[int, ...]
) -> None:
    shape = gqa(layers, kv_heads, head_dim)
    assert tuple(shape.kv_bytes_per_token(tp) for tp in (1, 2, 4, 8)) == expected
    assert shape.kv_bytes_per_token(1, item_bytes=1) == expected[0] // 2


# Same source: MLA is not divided by tensor parallelism.
@pytest.mark.parametrize(
    ("layers", "bf16"),
    [
        pytest.param(27, 31104, id="DeepSeek-V2-Lite"),
        pytest.param(60, 69120, id="DeepSeek-V2"),
        pytest.param(61, 70272, id="DeepSeek-V3"),
    ],
)
@pytest.mark.parametrize("tp", [1, 2, 8])
def test_mla_keeps_the_whole_vector_on_every_rank(layers: int, bf16: int, tp: int) -> None:
    shape = read_geometry(DEEPSEEK_V2_LITE | {"num_hidden_layers": layers})
    assert shape.kv_bytes_per_token(tp) == bf16
    assert shape.kv_bytes_per_token(tp, item_bytes=1) == bf16 // 2


def test_an_explicit_head_dim_wins_over_hidden_size_by_heads() -> None:
    config = QWEN3_8B | {"hidden_size": 1024, "num_attention_heads": 16}
    assert read_geometry(config).head_dim == 128
    assert read_geometry(config | {"head_dim": None}).head_dim == 64


def test_the_old_names_of_chatglm() -> None:
    shape = read_geometry(CHATGLM_9B)
    assert (shape.layers, shape.kv_heads, shape.head_dim) == (40, 2, 128)
    assert (shape.vocab, shape.max_position) == (151552, 131072)
    assert shape.sharded_widths == (13696,)


def test_a_shape_under_text_config() -> None:
    assert read_geometry({"text_config": QWEN3_8B, "vocab_size": 1}) == read_geometry(QWEN3_8B)


def test_without_kv_heads_every_head_has_its_own() -> None:
    config = {key: value for key, value in LLAMA_8B.items() if key != "num_key_value_heads"}
    assert read_geometry(config).kv_heads == 32


def test_a_partial_rotary_factor_cuts_the_rotary_width() -> None:
    assert read_geometry(QWEN3_8B | {"partial_rotary_factor": 0.5}).rotary_dim == 64
    assert read_geometry(DEEPSEEK_V2_LITE).rotary_dim == 64


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        pytest.param(QWEN25_7B, [1, 2, 4], id="28 heads"),
        pytest.param(CHATGLM_9B, [1, 2, 4, 8], id="2 KV heads are repeated"),
        pytest.param(QWEN3_8B | {"num_key_value_heads": 6}, [1, 2], id="6 KV heads"),
        pytest.param(QWEN3_235B_FP8, [1, 2, 4], id="1536 / 8 cuts blocks of 128"),
        pytest.param(QWEN3_235B_FP8 | {"quantization_config": None}, [1, 2, 4, 8], id="bf16"),
        pytest.param(
            QWEN25_7B | {"quantization_config": {"quant_method": "awq", "group_size": 128}},
            [1, 2, 4], id="AWQ",
        ),
        pytest.param(
            QWEN3_8B | {"intermediate_size": 1152, "quantization_config": {"group_size": 128}},
            [1], id="9 groups",
        ),
    ],
)  # fmt: skip
def test_how_many_parts_a_model_can_be_cut_into(config: dict[str, Any], sizes: list[int]) -> None:
    shape = read_geometry(config)
    assert [size for size in (1, 2, 4, 8) if shape.is_divisible_by(size)] == sizes


def test_the_dense_width_counts_where_some_layers_are_dense() -> None:
    assert read_geometry(QWEN3_235B_FP8).sharded_widths == (1536,)
    mixed = QWEN3_235B_FP8 | {"mlp_only_layers": [0]}
    assert read_geometry(mixed).sharded_widths == (1536, 12288)
    assert read_geometry(DEEPSEEK_V2_LITE).sharded_widths == (1408, 10944)


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_attention_heads", "vocab_size"])
@pytest.mark.parametrize("value", [None, 0, -1, "32", True, 1.5])
def test_a_config_without_a_shape_is_refused(key: str, value: object) -> None:
    with pytest.raises(UnsafeWeights) as caught:
        read_geometry(LLAMA_8B | {key: value})
    assert key in caught.value.reason


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*QWEN3_8B, *DEEPSEEK_V2_LITE, "text_config", "quantization_config"]),
        st.none() | st.integers() | st.text(max_size=3) | st.just(LLAMA_8B),
    )
)
def test_any_config_gives_a_geometry_or_is_refused(config: dict[str, Any]) -> None:
    try:
        shape = read_geometry(LLAMA_8B | config)
    except UnsafeWeights:
        return
    assert shape.kv_bytes_per_token() >= shape.kv_bytes_per_token(8) > 0
    assert shape.is_divisible_by(1)


def _published() -> list[tuple[str, Path, int]]:
    if not (FACTS / "facts.yaml").exists():
        return []
    architectures = {spec.architecture for spec in load_catalog().specs} | {"ChatGLMModel"}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    models = yaml.load((FACTS / "facts.yaml").read_text(), loader)["models"]
    return [
        (
            model["model"],
            FACTS / model["memory_config"]["config_file"],
            model["computed_from_config"]["kv_cache_bytes_per_token_16bit_tp1"],
        )
        for model in models
        if model["architecture"].get("value") in architectures
    ]


@pytest.mark.parametrize(("model", "file", "expected"), _published())
def test_published_configs_give_the_published_bytes_per_token(
    model: str, file: Path, expected: int
) -> None:
    assert read_geometry(json.loads(file.read_text())).kv_bytes_per_token() == expected
