"""config.json → which layer has which attention and which feed-forward block."""

import pytest

from serve.errors import BadFile
from serve.geometry.config import read_shape
from serve.shape import Dense, Experts, Heads, Index, Latent, Linear
from tests.geometry.samples import (
    DEEPSEEK,
    FOLDER,
    GPT_OSS,
    HYBRID,
    LLAMA,
    MIXTURE,
    NO_FACTS,
    QWEN3,
    SPARSE,
    Config,
    published,
)

needs_facts = pytest.mark.skipif(not FOLDER.is_dir(), reason=NO_FACTS)


def attention(config: Config) -> str:
    """A letter per layer: F sees all, S a window, L is linear, M latent, I latent with an index."""
    return "".join(_letter(layer.attention) for layer in read_shape(config).layers)


def _letter(attention: Heads | Latent | Linear) -> str:
    if isinstance(attention, Linear):
        return "L"
    if isinstance(attention, Latent):
        return "I" if attention.index else "M"
    return "S" if attention.window else "F"


def mixtures(config: Config) -> str:
    """A letter per layer: D is dense, E has experts."""
    blocks = [layer.feed_forward for layer in read_shape(config).layers]
    return "".join("E" if isinstance(block, Experts) else "D" for block in blocks)


GEMMA2 = LLAMA | {
    "architectures": ["Gemma2ForCausalLM"], "head_dim": 256, "sliding_window": 4096,
}  # fmt: skip
GEMMA3 = GEMMA2 | {"architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 7}


@pytest.mark.parametrize(
    ("config", "letters"),
    [
        (LLAMA, "FFFF"),
        (LLAMA | {"architectures": ["MistralForCausalLM"], "sliding_window": 4096}, "SSSS"),
        (LLAMA | {"architectures": ["MistralForCausalLM"], "sliding_window": None}, "FFFF"),
        (LLAMA | {"sliding_window": 0}, "FFFF"),
        # Qwen's files name a window that is switched off.
        (QWEN3 | {"sliding_window": 4096}, "FFFF"),
        (QWEN3 | {"sliding_window": 4096, "use_sliding_window": False}, "FFFF"),
        (QWEN3 | {"sliding_window": 4096, "use_sliding_window": True,
                  "max_window_layers": 2}, "FFSS"),
        (QWEN3 | {"sliding_window": 4096, "use_sliding_window": True,
                  "max_window_layers": 4}, "FFFF"),
        (GPT_OSS, "SFSF"),
        (GPT_OSS | {"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2}, "FFSS"),
        (GEMMA2, "SFSF"),
        (GEMMA3, "SSSSSFS"),
        (GEMMA3 | {"sliding_window_pattern": 3}, "SSFSSFS"),
        (HYBRID, "LLLF"),
        (HYBRID | {"full_attention_interval": 2}, "LFLF"),
        (HYBRID | {"layer_types": ["linear_attention"] * 3 + ["full_attention"]}, "LLLF"),
        (DEEPSEEK, "MMMM"),
        (SPARSE, "IIII"),
        # GLM-5.2: the others take the selection of a layer before.
        (SPARSE | {"index_topk_freq": 2, "index_skip_topk_offset": 2}, "IIMI"),
        (SPARSE | {"index_topk_pattern": "FSSF"}, "IMMI"),
        (SPARSE | {"index_topk_pattern": "FSSF",
                   "indexer_types": ["full", "shared", "shared", "full"]}, "IMMI"),
    ],
)  # fmt: skip
def test_attention_per_layer(config: Config, letters: str) -> None:
    assert attention(config) == letters


def test_a_window_and_a_gate() -> None:
    layers = read_shape(GPT_OSS).layers
    assert layers[0].attention == Heads(8, 2, 64, 64, window=128)
    assert layers[1].attention == Heads(8, 2, 64, 64)
    assert read_shape(HYBRID).layers[3].attention == Heads(8, 2, 256, 256, has_gate=True)
    ungated = read_shape(HYBRID | {"attn_output_gate": False})
    assert ungated.layers[3].attention == Heads(8, 2, 256, 256)


def test_latent_attention() -> None:
    assert read_shape(DEEPSEEK).layers[0].attention == Latent(8, 64, 16, 32, 32, 96)
    direct = read_shape(DEEPSEEK | {"q_lora_rank": None}).layers[0].attention
    assert direct == Latent(8, 64, 16, 32, 32, None)
    assert read_shape(SPARSE).layers[0].attention == Latent(8, 64, 16, 32, 32, 96, Index(4, 32, 64))


def test_linear_attention() -> None:
    assert read_shape(HYBRID).layers[0].attention == Linear(4, 8, 32, 32, 4)
    wide = read_shape(HYBRID | {"mamba_ssm_dtype": "float32"})
    assert wide.layers[0].attention == Linear(4, 8, 32, 32, 4, "float32")


@pytest.mark.parametrize(
    ("config", "letters"),
    [
        (LLAMA, "DDDD"),
        (MIXTURE, "EEEE"),
        (MIXTURE | {"decoder_sparse_step": 2}, "DEDE"),
        (MIXTURE | {"mlp_only_layers": [0, 2]}, "DEDE"),
        (DEEPSEEK, "DEEE"),
        (DEEPSEEK | {"first_k_dense_replace": 0, "moe_layer_freq": 2}, "EDED"),
        (DEEPSEEK | {"first_k_dense_replace": 4}, "DDDD"),
        (DEEPSEEK | {"mlp_layer_types": ["dense"] + ["sparse"] * 3}, "DEEE"),
        (GPT_OSS, "EEEE"),
        # A dense architecture stays dense, whatever else its file names.
        (LLAMA | {"num_experts": 8}, "DDDD"),
    ],
)
def test_feed_forward_per_layer(config: Config, letters: str) -> None:
    assert mixtures(config) == letters


@pytest.mark.parametrize(
    ("config", "experts"),
    [
        (MIXTURE, Experts(16, 4, 128)),
        (MIXTURE | {"shared_expert_intermediate_size": 256}, Experts(16, 4, 128, 256)),
        (DEEPSEEK | {"n_shared_experts": 2}, Experts(16, 4, 128, 256)),
        (DEEPSEEK | {"n_shared_experts": None}, Experts(16, 4, 128)),
        # gpt-oss, MiniMax and Mixtral call the width of one expert as others that of the whole.
        (GPT_OSS, Experts(16, 4, 512)),
        (GPT_OSS | {"experts_per_token": 4}, Experts(16, 4, 512)),
    ],
)
def test_experts(config: Config, experts: Experts) -> None:
    assert read_shape(config).layers[-1].feed_forward == experts


def test_the_dense_width_of_a_mixture() -> None:
    assert read_shape(DEEPSEEK).layers[0].feed_forward == Dense(512)


@needs_facts
@pytest.mark.parametrize(
    ("name", "kinds", "blocks"),
    [
        ("openai__gpt-oss-20b", {"S": 12, "F": 12}, {"E": 24}),
        ("Qwen__Qwen3-Next-80B-A3B-Thinking", {"L": 36, "F": 12}, {"E": 48}),
        ("Qwen__Qwen3.5-27B", {"L": 48, "F": 16}, {"D": 64}),
        ("Qwen__Qwen2.5-7B-Instruct", {"F": 28}, {"D": 28}),
        ("deepseek-ai__DeepSeek-V2-Lite", {"M": 27}, {"D": 1, "E": 26}),
        ("deepseek-ai__DeepSeek-V3.2", {"I": 61}, {"D": 3, "E": 58}),
        ("zai-org__GLM-5.2", {"I": 21, "M": 57}, {"D": 3, "E": 75}),
        ("zai-org__GLM-4.5-Air", {"F": 46}, {"D": 1, "E": 45}),
        ("MiniMaxAI__MiniMax-M2.7", {"F": 62}, {"E": 62}),
    ],
)
def test_layers_of_published_files(
    name: str, kinds: dict[str, int], blocks: dict[str, int]
) -> None:
    config = published(name)
    letters, feeds = attention(config), mixtures(config)
    assert {letter: letters.count(letter) for letter in set(letters)} == kinds
    assert {letter: feeds.count(letter) for letter in set(feeds)} == blocks


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (LLAMA | {"layer_types": ["full_attention"] * 3}, "layer_types: has 3 entries for 4"),
        (LLAMA | {"layer_types": ["chunked_attention"] * 4}, "layer_types.0.: cannot be planned"),
        (LLAMA | {"layer_types": "full_attention"}, "layer_types: must be a list"),
        (LLAMA | {"layer_types": ["sliding_attention"] * 4}, "sliding_window: is missing"),
        (QWEN3 | {"layer_types": ["sliding_attention"] * 4, "use_sliding_window": False,
                  "sliding_window": 64}, "use_sliding_window: false contradicts layer_types"),
        (HYBRID | {"layer_types": ["full_attention"] * 4},
         "full_attention_interval: 4 contradicts layer_types"),
        (HYBRID | {"linear_num_value_heads": 6}, "linear_num_value_heads: 6 is not a multiple"),
        (HYBRID | {"mamba_ssm_dtype": "int8"}, "mamba_ssm_dtype: cannot be planned"),
        (SPARSE | {"indexer_types": ["full", "shared", "shared", "full"]}, "indexer_types: contra"),
        (DEEPSEEK | {"mlp_layer_types": ["dense"] * 4}, "mlp_layer_types: contradicts first_k"),
        (DEEPSEEK | {"mlp_layer_types": ["dense"] * 3}, "mlp_layer_types: has 3 entries for 4"),
        (DEEPSEEK | {"mlp_layer_types": ["dense"] + ["moe"] * 3}, "mlp_layer_types.1.: must be"),
        (DEEPSEEK | {"first_k_dense_replace": 5}, "first_k_dense_replace: 5 is more than the 4"),
        (DEEPSEEK | {"first_k_dense_replace": None}, "first_k_dense_replace: is missing"),
        (MIXTURE | {"mlp_only_layers": [4]}, "mlp_only_layers: names layer 4 of 4"),
        (MIXTURE | {"num_experts_per_tok": 17}, "num_experts_per_tok: 17 is more than the 16"),
        (MIXTURE | {"num_local_experts": 8}, "num_local_experts: 8 contradicts num_experts, 16"),
        (GPT_OSS | {"experts_per_token": 8}, "experts_per_token: 8 contradicts num_experts_per"),
    ],
)  # fmt: skip
def test_layers_that_contradict_each_other(config: Config, field: str) -> None:
    with pytest.raises(BadFile, match=field):
        read_shape(config)
