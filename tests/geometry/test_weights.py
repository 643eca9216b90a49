"""Bytes of weights: against what vLLM allocates, what it logged, and what makers publish."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serve.geometry import read_geometry, weights_per_stage
from serve.geometry.weights import layers_per_stage
from serve.shape import Geometry, Latent, Parallel
from tests.geometry.counted import COUNTED
from tests.plan.known import FACTS

GIB = 2**30
needs_facts = pytest.mark.skipif(
    not FACTS.exists(), reason="the folder of model facts is not beside this checkout"
)

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "hidden_size": 4096, "intermediate_size": 14336,
    "vocab_size": 128256, "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN3_06B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"], "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "hidden_size": 1024, "intermediate_size": 3072,
    "vocab_size": 151936, "max_position_embeddings": 40960, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN25_7B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "hidden_size": 3584, "intermediate_size": 18944,
    "vocab_size": 152064, "max_position_embeddings": 32768, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN3_30B: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"], "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144,
    "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
    "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
}  # fmt: skip
V2_LITE: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"], "num_hidden_layers": 27, "num_attention_heads": 16,
    "num_key_value_heads": 16, "hidden_size": 2048, "intermediate_size": 10944,
    "moe_intermediate_size": 1408, "n_routed_experts": 64, "n_shared_experts": 2,
    "num_experts_per_tok": 6, "first_k_dense_replace": 1, "kv_lora_rank": 512,
    "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "vocab_size": 102400,
    "max_position_embeddings": 163840, "torch_dtype": "bfloat16",
}  # fmt: skip
GPT_OSS_20B: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"], "num_hidden_layers": 24, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 64, "hidden_size": 2880, "intermediate_size": 2880,
    "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128,
    "vocab_size": 201088, "max_position_embeddings": 131072,
    "quantization_config": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens",
            "lm_head",
        ],
    },
}  # fmt: skip


def config_of(name: str) -> dict[str, Any]:
    file: Path = FACTS / "configs" / f"{name}.json"
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """The same model in 16 bit."""
    kept = {key: value for key, value in config.items() if key != "quantization_config"}
    if isinstance(kept.get("text_config"), dict):
        kept["text_config"] = plain(kept["text_config"])
    return kept


def absorbed(geometry: Geometry, parallel: Parallel, stage: int) -> int:
    """Bytes of MLA's matrix, unpacked; made only after the weights are there, where they are packed
    (no published checkpoint packs it otherwise than in FP8)."""
    if geometry.quant is None or geometry.quant.method != "fp8":
        return 0
    latents = [layer.attention for layer in layers_per_stage(geometry, parallel)[stage]]
    return sum(
        one.heads // parallel.tensor * (one.nope_dim + one.value_dim) * one.kv_rank * 2
        for one in latents
        if isinstance(one, Latent)
    )


@pytest.mark.parametrize(
    ("config", "parallel", "expected"),
    [
        (LLAMA_8B, Parallel(), (16_094_077_440,)),
        (LLAMA_8B, Parallel(2), (8_064_082_432,)),
        (LLAMA_8B, Parallel(4), (4_049_084_928,)),
        (LLAMA_8B, Parallel(1, 2), (8_063_811_840, 8_063_820_032)),
        (QWEN3_06B, Parallel(), (1_202_586_048,)),
        (QWEN3_06B, Parallel(2), (606_601_664,)),
        # A tied table is on the first stage and on the last; the middle one has neither.
        (QWEN3_06B, Parallel(1, 3), (604_807_824, 325_104_800, 604_809_872)),
        (QWEN25_7B, Parallel(), (15_239_622_080,)),
        (QWEN25_7B, Parallel(4), (3_816_503_744,)),
        (QWEN3_30B, Parallel(), (61_074_731_776,)),
        (QWEN3_30B, Parallel(4), (15_295_738_624,)),
        # vLLM gives each stage of this architecture both tables.
        (QWEN3_30B, Parallel(1, 2), (31_164_940_672, 31_164_940_672)),
        (V2_LITE, Parallel(2), (15_762_841_008,)),
    ],
)  # fmt: skip
def test_the_bytes_are_those_that_vllm_allocates(
    config: dict[str, Any], parallel: Parallel, expected: tuple[int, ...]
) -> None:
    assert weights_per_stage(read_geometry(config), parallel) == expected


@needs_facts
@pytest.mark.parametrize(("name", "tensor", "pipeline", "stage", "counted"), COUNTED)
def test_every_config_against_vllm(
    name: str, tensor: int, pipeline: int, stage: int, counted: int
) -> None:
    config = config_of(name)
    geometry, parallel = read_geometry(config), Parallel(tensor, pipeline)
    ours = weights_per_stage(geometry, parallel, None)[stage]
    ours -= absorbed(geometry, parallel, stage)
    # What FP8 checkpoints bring for their caches is let go after loading, and where blocks are cut
    # the scales of the smaller ones are more.
    slack = 0 if geometry.quant is None else (0.001 if tensor > 2 else 1e-6) * counted
    assert abs(ours - counted) <= slack + (256 if config["model_type"] == "glm" else 0)


# What a log says of weights (row → GiB per card), and the layout where the row is silent or short.
NOT_COMPARABLE = {
    "12": "ROCm: 0.19 GiB above any arithmetic",
    "20": "the figure is not that of the layout in the row: experts lie on eight cards",
    "28": "the number of ranks is not stated",
    "34": "quantised while loading, with an encoder of images beside it",
}


@needs_facts
def test_the_logged_weights() -> None:
    seen = 0
    for row in csv.DictReader((FACTS / "memory_ground_truth.csv").read_text().splitlines()):
        if not (row["weights_gib_per_gpu"] and row["config_file"]) or row["id"] in NOT_COMPARABLE:
            continue
        config = config_of(row["config_file"].removesuffix(".json"))
        if row["quant"] == "fp8" and "quantization_config" not in config:
            block = {"quant_method": "fp8", "weight_block_size": [128, 128]}
            config["quantization_config"] = block
        n_bytes = weights_per_stage(read_geometry(config), Parallel(int(row["tp"] or 1)))[0]
        assert n_bytes / GIB == pytest.approx(float(row["weights_gib_per_gpu"]), rel=0.005), row
        seen += 1
    assert seen >= 10


def published(text: str) -> tuple[float, float]:
    """(parameters, how far the last printed digit reaches) of "7.62B", "1T", "230B (228.7B)"."""
    found = re.match(r"([\d.]+)([BT])", text)
    assert found is not None, text
    unit = {"B": 1e9, "T": 1e12}[found[2]]
    digits = len(found[1].partition(".")[2])
    return float(found[1]) * unit, 0.5 * 10**-digits * unit


def parameters(config: dict[str, Any]) -> float:
    """Numbers in the weights: no table of positions, no copies."""
    geometry = read_geometry(plain(config))
    stored = sum(part.n_bytes for part in geometry.parts if part.place != "each")
    stored += sum(p.n_bytes for p in geometry.parts if p.place == "each" and p.cut == "vocab")
    return (stored - absorbed(geometry, Parallel(), 0)) / 2


@needs_facts
def test_the_published_numbers_of_parameters() -> None:
    models = yaml.safe_load((FACTS / "facts.yaml").read_text())["models"]
    seen = 0
    for model in models:
        file = model["memory_config"]["config_file"]
        # Those with an encoder of images count it too; some are not to be planned at all.
        if not file or "vision_config" in (config := json.loads((FACTS / file).read_text())):
            continue
        if config["architectures"][0] in ("DeepseekV4ForCausalLM", "MiniMaxM3ForCausalLM"):
            continue
        total, digit = published(str(model["parameters"]["total"]))
        assert abs(parameters(config) - total) <= max(0.01 * total, digit), model["model"]
        seen += 1
    assert seen >= 50


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        # vLLM's pull request 20665 shows DeepSeek-V2-Lite's 14 and 13.
        (27, 2, [14, 13]), (28, 3, [9, 10, 9]), (30, 4, [7, 8, 8, 7]), (36, 4, [9, 9, 9, 9]),
        (61, 8, [7, 7, 8, 8, 8, 8, 8, 7]), (32, 1, [32]), (31, 4, [8, 8, 8, 7]),
    ],
)  # fmt: skip
def test_layers_of_a_stage(layers: int, stages: int, expected: list[int]) -> None:
    geometry = read_geometry(QWEN25_7B | {"num_hidden_layers": layers})
    held = layers_per_stage(geometry, Parallel(pipeline=stages))
    assert [len(stage) for stage in held] == expected


def test_kv_heads_are_repeated_where_ranks_are_more() -> None:
    four, eight = (
        weights_per_stage(read_geometry(QWEN3_30B), Parallel(tensor))[0] for tensor in (4, 8)
    )
    one_head = 2 * 128 * 2048 * 2 * 48  # keys and values, 16 bit, all layers
    rest_of_four = four - one_head
    # Everything else is at most halved, the one KV head of a rank stays.
    assert eight - one_head >= rest_of_four // 2


@pytest.mark.parametrize(
    ("capability", "expected_gib"),
    [
        ((9, 0), 13.44), ((10, 0), 13.70), ((8, 9), 13.70), ((12, 0), 13.70), (None, 12.85),
    ],
)  # fmt: skip
def test_mxfp4_is_padded_as_the_kernels_of_a_card_want(
    capability: tuple[int, int] | None, expected_gib: float
) -> None:
    n_bytes = weights_per_stage(read_geometry(GPT_OSS_20B), Parallel(), capability)[0]
    assert n_bytes / GIB == pytest.approx(expected_gib, abs=0.006)


def test_experts_are_spread_whole_or_sliced() -> None:
    geometry = read_geometry(QWEN3_30B)
    experts = 128 * 3 * 768 * 2048 * 2 * 48
    whole = weights_per_stage(geometry, Parallel())[0]
    rest = whole - experts
    assert weights_per_stage(geometry, Parallel(data=4, is_expert=True))[0] == rest + experts // 4
    assert weights_per_stage(geometry, Parallel(data=4))[0] == rest + experts // 4
    # 128 experts on 3 ranks: 43, 43 and 42; the fullest counts.
    share = weights_per_stage(geometry, Parallel(data=3, is_expert=True))[0] - rest
    assert share == experts // 128 * 43


def test_shared_experts_are_whole_where_ranks_divide_the_tokens() -> None:
    geometry = read_geometry(V2_LITE)
    shared = 3 * 2 * 1408 * 2048 * 2 * 26
    sliced = weights_per_stage(geometry, Parallel(2))[0]
    spread = weights_per_stage(geometry, Parallel(2, is_expert=True))[0]
    assert sliced == spread
    both = weights_per_stage(geometry, Parallel(2, data=2, is_expert=True))[0]
    experts = 64 * 3 * 1408 * 2048 * 2 * 26
    assert both == spread - experts // 4 + shared // 2


CONFIGS = (LLAMA_8B, QWEN3_06B, QWEN25_7B, QWEN3_30B, V2_LITE, GPT_OSS_20B)


@given(
    st.sampled_from(CONFIGS), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 3]),
    st.booleans(),
)  # fmt: skip
def test_more_ranks_never_hold_more_each_and_never_less_in_all(
    config: dict[str, Any], tensor: int, pipeline: int, is_expert: bool
) -> None:
    geometry = read_geometry(config)
    whole = weights_per_stage(geometry, Parallel())[0]
    held = weights_per_stage(geometry, Parallel(tensor, pipeline, is_expert=is_expert))
    assert len(held) == pipeline
    assert max(held) <= whole
    assert tensor * sum(held) >= whole - tensor * len(geometry.parts)
