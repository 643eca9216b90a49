"""Safetensors headers: exact bytes from them, and what is said when they contradict the config."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import BadFile, SettingsError
from serve.geometry import read_geometry, weights_per_stage
from serve.shape import Parallel, Tensor
from tests.geometry import checkpoints
from tests.geometry.checkpoints import tensor
from tests.geometry.test_weights import (
    GPT_OSS_20B,
    LLAMA_8B,
    QWEN3_06B,
    QWEN3_30B,
    QWEN25_7B,
    V2_LITE,
)

FEW = {"num_hidden_layers": 3}
LLAMA, QWEN3, QWEN2 = LLAMA_8B | FEW, QWEN3_06B | FEW, QWEN25_7B | FEW
MIXTURE = QWEN3_30B | FEW | {"num_experts": 16}
LITE = V2_LITE | FEW | {"n_routed_experts": 8}
OSS = GPT_OSS_20B | {"num_hidden_layers": 4}
FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}
GPTQ = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}}


def totals(geometry: Any) -> list[tuple[int, ...]]:
    layouts = (Parallel(), Parallel(2), Parallel(4), Parallel(1, 2))
    return [weights_per_stage(geometry, layout) for layout in layouts]


@pytest.mark.parametrize(
    ("config", "tensors"),
    [
        (LLAMA, checkpoints.dense(LLAMA)),
        (QWEN3, checkpoints.dense(QWEN3)),
        (QWEN2, checkpoints.dense(QWEN2, has_bias=True)),
        (MIXTURE, checkpoints.mixture(MIXTURE)),
        (LITE, checkpoints.deepseek(LITE)),
        (OSS, checkpoints.gpt_oss(OSS)),
        (QWEN3 | FP8, checkpoints.dense(QWEN3, "fp8")),
        (MIXTURE | FP8, checkpoints.mixture(MIXTURE, "fp8")),
        (QWEN2 | AWQ, checkpoints.dense(QWEN2, "awq", has_bias=True)),
        (LLAMA | GPTQ, checkpoints.dense(LLAMA, "gptq")),
    ],
    ids=[
        "llama", "qwen3", "qwen2", "experts", "latent", "mxfp4", "fp8", "fp8-experts", "awq", "gptq"
    ],
)  # fmt: skip
def test_headers_and_config_give_the_same_bytes(
    config: dict[str, Any], tensors: list[Tensor]
) -> None:
    by_config, by_headers = read_geometry(config), read_geometry(config, tensors)
    assert (by_config.basis, by_headers.basis) == ("config", "headers")
    assert totals(by_config) == totals(by_headers)
    assert by_headers.notes == by_config.notes


def test_a_second_copy_of_a_tied_table_is_not_loaded() -> None:
    twice = [*checkpoints.dense(QWEN3), tensor("lm_head.weight", 151936, 1024)]
    assert totals(read_geometry(QWEN3, twice)) == totals(read_geometry(QWEN3))


def test_float32_weights_are_loaded_in_16_bit() -> None:
    stored = [
        replace(one, dtype="F32", n_bytes=2 * one.n_bytes) for one in checkpoints.dense(LLAMA)
    ]
    config = LLAMA | {"torch_dtype": "float32"}
    assert totals(read_geometry(config, stored)) == totals(read_geometry(LLAMA))


def test_draft_layers_are_not_loaded() -> None:
    config = LITE | {"num_nextn_predict_layers": 1}
    more = [
        tensor("model.layers.3.embed_tokens.weight", 102400, 2048),
        tensor("model.layers.3.eh_proj.weight", 2048, 4096),
    ]
    geometry = read_geometry(config, [*checkpoints.deepseek(LITE), *more])
    assert totals(geometry) == totals(read_geometry(LITE))
    assert sum(part.n_bytes for part in geometry.parts if part.place == "mtp") > 2**28


def test_what_nobody_told_us_counts_as_whole_and_is_said() -> None:
    more = [tensor("model.layers.1.self_attn.novelty.weight", 100, 100)]
    geometry = read_geometry(LLAMA, [*checkpoints.dense(LLAMA), *more])
    known = read_geometry(LLAMA)
    for layout in (Parallel(), Parallel(4)):
        assert weights_per_stage(geometry, layout)[0] == (
            weights_per_stage(known, layout)[0] + 20_000
        )
    assert geometry.notes[-1] == (
        "1 tensors of unknown kind count as whole on every card: "
        "model.layers.1.self_attn.novelty.weight"
    )


def without(name: str) -> Callable[[list[Tensor]], list[Tensor]]:
    return lambda tensors: [one for one in tensors if name not in one.name]


def changed(name: str, **facts: Any) -> Callable[[list[Tensor]], list[Tensor]]:
    def change(tensors: list[Tensor]) -> list[Tensor]:
        assert any(one.name == name for one in tensors)
        return [replace(one, **facts) if one.name == name else one for one in tensors]

    return change


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        (LLAMA, changed(Q, shape=(2048, 4096)),
         f"{Q}: has the shape [2048, 4096], not [4096, 4096], by config.json's "
         "num_attention_heads"),
        (LLAMA, changed("model.layers.0.self_attn.k_proj.weight", shape=(4096, 4096)),
         "num_key_value_heads"),
        (LLAMA, changed("model.layers.2.mlp.down_proj.weight", shape=(4096, 11008)),
         "intermediate_size"),
        (LLAMA, changed("model.embed_tokens.weight", shape=(32000, 4096)), "vocab_size"),
        (LLAMA, changed(Q, dtype="F8_E4M3"),
         f"{Q}: is F8_E4M3, but config.json names no quantization_config"),
        (LLAMA | FP8, lambda tensors: tensors,
         "is BF16, but config.json's quantization_config says fp8"),
        (LLAMA | {"num_hidden_layers": 2}, lambda tensors: tensors,
         "model.layers.2.self_attn.q_proj.weight: there is no such layer by config.json's "
         "num_hidden_layers 2"),
        (LLAMA | {"num_hidden_layers": 4}, lambda tensors: tensors,
         "layers.3: has no tensors, but config.json's num_hidden_layers is 4"),
        (LLAMA, without(".down_proj."), "all tensors: "),
        (LLAMA, without("lm_head"), "all tensors: "),
    ],
)  # fmt: skip
def test_headers_that_contradict_the_config_are_refused(
    config: dict[str, Any], change: Callable[[list[Tensor]], list[Tensor]], said: str
) -> None:
    with pytest.raises(BadFile) as caught:
        read_geometry(config, change(checkpoints.dense(LLAMA)))
    assert said in caught.value.problem


def test_an_expert_too_many_is_refused() -> None:
    with pytest.raises(BadFile, match=r"experts\.8\..*config.json names 8 experts"):
        read_geometry(MIXTURE | {"num_experts": 8}, checkpoints.mixture(MIXTURE))


def test_packed_words_of_another_width_are_refused() -> None:
    tensors = checkpoints.dense(QWEN2, "awq", has_bias=True)
    eight = AWQ["quantization_config"] | {"bits": 8}
    with pytest.raises(BadFile, match=r"qweight: .*quantization_config\.bits"):
        read_geometry(QWEN2 | {"quantization_config": eight}, tensors)


SAMPLE = [one for one in checkpoints.dense(LLAMA) if ".layers.0." in one.name]
ON_DISK = sum(one.n_bytes for one in checkpoints.dense(LLAMA))


def test_a_sample_is_compared_and_the_rest_is_arithmetic() -> None:
    geometry = read_geometry(LLAMA, SAMPLE, True, ON_DISK)
    assert geometry.basis == "sampled"
    assert geometry.checkpoint_bytes == ON_DISK
    assert totals(geometry) == totals(read_geometry(LLAMA))


@pytest.mark.parametrize("share", [0.5, 0.96, 1.04, 2])
def test_a_checkpoint_of_another_size_is_refused(share: float) -> None:
    with pytest.raises(BadFile, match=r"all tensors: \d+ bytes, but num_hidden_layers"):
        read_geometry(LLAMA, SAMPLE, True, int(ON_DISK * share))


def test_a_sample_may_have_a_second_copy_a_draft_layer_or_twice_the_bits() -> None:
    tied = sum(one.n_bytes for one in checkpoints.dense(QWEN3))
    table = 151936 * 1024 * 2
    sample = [one for one in checkpoints.dense(QWEN3) if ".layers.0." in one.name]
    assert read_geometry(QWEN3, sample, True, tied + table).basis == "sampled"
    wide = [replace(one, dtype="F32", n_bytes=2 * one.n_bytes) for one in SAMPLE]
    assert read_geometry(LLAMA, wide, True, 2 * ON_DISK).basis == "sampled"
    draft = LITE | {"num_nextn_predict_layers": 1}
    some = [one for one in checkpoints.deepseek(LITE) if ".layers.2." in one.name]
    disk = sum(one.n_bytes for one in checkpoints.deepseek(LITE))
    assert read_geometry(draft, some, True, disk + 950_000_000).basis == "sampled"
    with pytest.raises(BadFile, match="all tensors"):
        read_geometry(LITE, some, True, disk + 950_000_000)


def test_fp8_may_be_made_while_loading_and_nothing_else() -> None:
    tensors = checkpoints.dense(LLAMA)
    geometry = read_geometry(LLAMA, tensors, quantization="fp8")
    assert weights_per_stage(geometry, Parallel())[0] < 0.85 * sum(one.n_bytes for one in tensors)
    assert "packed while they are loaded" in geometry.notes[-1]
    with pytest.raises(SettingsError, match="not packed at all"):
        read_geometry(LLAMA, tensors, quantization="awq")


NAMES = st.sampled_from([one.name for one in checkpoints.mixture(MIXTURE)[:60]]) | st.text(
    max_size=60
)
TENSORS = st.builds(
    Tensor, NAMES, st.sampled_from(["BF16", "F32", "I32", "U8", "F8_E4M3", "I64"]),
    st.lists(st.integers(0, 5000), max_size=4).map(tuple), st.integers(0, 2**40),
)  # fmt: skip


@given(st.lists(TENSORS, max_size=5), st.booleans(), st.none() | st.integers(0, 2**50))
def test_any_headers_are_read_or_refused(
    tensors: list[Tensor], is_sample: bool, checkpoint_bytes: int | None
) -> None:
    try:
        geometry = read_geometry(MIXTURE, tensors, is_sample, checkpoint_bytes)
    except BadFile as error:
        assert error.path == "safetensors"
    else:
        assert weights_per_stage(geometry, Parallel())[0] > 0
