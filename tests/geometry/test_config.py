"""config.json → shape: widths, dtype, context and what a reader of the plan is told."""

from typing import Any

import pytest

from serve.errors import BadFile, SettingsError
from serve.geometry.config import read_shape
from serve.shape import Dense, Experts, Geometry, Heads, Latent
from tests.geometry.samples import (
    ALL,
    CHATGLM,
    DEEPSEEK,
    FOLDER,
    GPT_OSS,
    LLAMA,
    MIXTURE,
    NESTED,
    NO_FACTS,
    PUBLISHED,
    QWEN3,
    Config,
    published,
)

# Published models whose attention no rule here describes.
UNPLANNABLE = {
    "deepseek-ai__DeepSeek-V4-Flash", "deepseek-ai__DeepSeek-V4-Pro", "MiniMaxAI__MiniMax-M3",
    "moonshotai__Kimi-K3",
}  # fmt: skip
needs_facts = pytest.mark.skipif(not FOLDER.is_dir(), reason=NO_FACTS)


def heads_of(geometry: Geometry) -> tuple[int, int, int]:
    attention = geometry.layers[-1].attention
    assert isinstance(attention, Heads)
    return attention.heads, attention.kv_heads, attention.head_dim


@needs_facts
@pytest.mark.parametrize("name", [path.stem for path in PUBLISHED])
def test_a_published_file_is_read_or_refused_with_the_reason(name: str) -> None:
    if name in UNPLANNABLE:
        with pytest.raises(BadFile, match="cannot be planned: .*: "):
            read_shape(published(name))
        return
    geometry = read_shape(published(name))
    assert geometry.parts == () and geometry.basis == "config"
    assert geometry.max_position is not None and geometry.max_position >= 4096
    assert geometry.dtype == "bfloat16"
    assert not any("not known" in note for note in geometry.notes)


@needs_facts
def test_all_published_files_are_looked_at() -> None:
    assert len(PUBLISHED) >= 91
    assert {path.stem for path in PUBLISHED} >= UNPLANNABLE


# Figures of the published files: layers, hidden, vocabulary, context, rotated part of a head,
# whether embeddings are tied, draft layers.
@needs_facts
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen__Qwen3-0.6B", (28, 1024, 151936, 40960, 128, True, 0)),
        ("Qwen__Qwen3.5-35B-A3B", (40, 2048, 248320, 262144, 64, False, 1)),
        ("deepseek-ai__DeepSeek-V3", (61, 7168, 129280, 163840, 64, False, 1)),
        ("moonshotai__Kimi-K2.5", (61, 7168, 163840, 262144, 64, False, 0)),
        ("zai-org__glm-4-9b-chat", (40, 4096, 151552, 131072, 64, False, 0)),
        ("zai-org__GLM-4.5", (92, 5120, 151552, 131072, 64, False, 1)),
        ("MiniMaxAI__MiniMax-M2", (62, 3072, 200064, 196608, 64, False, 3)),
        ("openai__gpt-oss-120b", (36, 2880, 201088, 131072, 64, False, 0)),
    ],
)
def test_figures_of_published_files(name: str, expected: tuple[object, ...]) -> None:
    geometry = read_shape(published(name))
    assert expected == (
        len(geometry.layers), geometry.hidden, geometry.vocab, geometry.max_position,
        geometry.rotary_dim, geometry.is_tied, geometry.mtp_layers,
    )  # fmt: skip


def test_a_plain_model() -> None:
    geometry = read_shape(LLAMA)
    assert geometry.architecture == "LlamaForCausalLM"
    assert heads_of(geometry) == (8, 2, 32)
    assert geometry.layers == (geometry.layers[0],) * 4
    assert geometry.layers[0].feed_forward == Dense(512)
    assert (geometry.hidden, geometry.vocab, geometry.max_position) == (256, 1000, 8192)
    assert geometry.quant is None and geometry.kv_dtype is None and geometry.notes == ()


def test_equal_layers_are_one_object() -> None:
    for config in ALL.values():
        layers = read_shape(config).layers
        assert len({id(layer) for layer in layers}) == len(set(layers))


def test_a_head_may_be_wider_than_hidden_over_heads() -> None:
    assert heads_of(read_shape(QWEN3)) == (8, 2, 64)


def test_the_names_of_chatglm() -> None:
    geometry = read_shape(CHATGLM)
    assert heads_of(geometry) == (8, 2, 32)
    # Its tables have the padded number of rows, and half of each head is rotated.
    assert (geometry.vocab, geometry.max_position, geometry.rotary_dim) == (1024, 8192, 16)


def test_a_nested_language_model() -> None:
    geometry = read_shape(NESTED)
    assert geometry.architecture == "Mistral3ForConditionalGeneration"
    assert heads_of(geometry) == (8, 2, 32) and geometry.dtype == "bfloat16"
    assert len(geometry.notes) == 1 and "images or sound" in geometry.notes[0]
    assert read_shape(without(NESTED, "vision_config")).notes == ()


@pytest.mark.parametrize(
    ("config", "is_tied"),
    [
        (LLAMA, False),
        (LLAMA | {"tie_word_embeddings": True}, True),
        ({k: v for k, v in LLAMA.items() if k != "tie_word_embeddings"}, False),
        # Gemma's and Cohere's files say nothing where they are tied.
        ({k: v for k, v in LLAMA.items() if k != "tie_word_embeddings"}
         | {"architectures": ["Gemma2ForCausalLM"], "head_dim": 256}, True),
        (NESTED | {"tie_word_embeddings": True}, True),
    ],
)  # fmt: skip
def test_tied_embeddings(config: Config, is_tied: bool) -> None:
    assert read_shape(config).is_tied is is_tied


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({}, 8192),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": None, "seq_length": 4096}, 4096),
        ({"n_positions": 2048}, 2048),  # the least of several
        ({"model_max_length": 16384}, 16384),  # Command-R: this one wins
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, 16384),
        ({"rope_scaling": {"type": "dynamic", "factor": 4}}, 32768),
        # These name the scaled length already.
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, 8192),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 8192),
        ({"rope_scaling": {"type": "longrope", "factor": 8.0}}, 8192),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1]}}, 8192),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 8192),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, 16384),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0},
                              "sliding_attention": {"rope_type": "default"}}}, 65536),
    ],
)  # fmt: skip
def test_the_longest_context(changes: Config, length: int | None) -> None:
    assert read_shape(LLAMA | changes).max_position == length


def test_gemma_3_names_the_scaled_length() -> None:
    scaled = {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "head_dim": 256}
    config = LLAMA | {"architectures": ["Gemma3ForCausalLM"], "sliding_window": 512} | scaled
    assert read_shape(config).max_position == 8192


@pytest.mark.parametrize(
    ("config", "rotated"),
    [
        (LLAMA, 32),
        (LLAMA | {"partial_rotary_factor": 0.5}, 16),
        (LLAMA | {"rotary_dim": 8}, 8),
        (LLAMA | {"rope_parameters": {"partial_rotary_factor": 0.25}}, 8),
        (DEEPSEEK, 16),
        (LLAMA | {"architectures": ["Glm4ForCausalLM"], "head_dim": 128}, 64),
    ],
)
def test_the_rotated_part_of_a_head(config: Config, rotated: int) -> None:
    assert read_shape(config).rotary_dim == rotated


@pytest.mark.parametrize(
    ("named", "wished", "dtype", "notes"),
    [
        ("bfloat16", None, "bfloat16", 0),
        ("float16", "auto", "float16", 0),
        ("torch.float16", None, "float16", 0),
        ("float32", None, "bfloat16", 1),  # the engine loads these in 16 bit
        (None, None, "bfloat16", 1),
        ("bfloat16", "half", "float16", 0),
        ("bfloat16", "float", "float32", 0),
    ],
)
def test_the_number_format(named: str | None, wished: str | None, dtype: str, notes: int) -> None:
    geometry = read_shape(LLAMA | {"torch_dtype": named}, dtype=wished)
    assert geometry.dtype == dtype and len(geometry.notes) == notes


def test_an_impossible_number_format() -> None:
    with pytest.raises(SettingsError) as caught:
        read_shape(LLAMA, dtype="int3")
    assert caught.value.key == "dtype" and "bfloat16" in (caught.value.suggestion or "")


def test_a_model_that_overflows_in_float16() -> None:
    config = LLAMA | {"architectures": ["Glm4ForCausalLM"], "head_dim": 128}
    with pytest.raises(SettingsError, match="overflows"):
        read_shape(config, dtype="half")
    loaded = read_shape(config | {"torch_dtype": "float16"})
    assert loaded.dtype == "bfloat16" and "loaded as bfloat16" in loaded.notes[0]
    assert read_shape(config, dtype="float32").dtype == "float32"


def without(config: Config, *names: str) -> Config:
    return {name: value for name, value in config.items() if name not in names}


@pytest.mark.parametrize(
    "config", [LLAMA | {"architectures": ["NewForCausalLM"], "model_type": "new"},
               without(LLAMA, "architectures", "model_type")],
)  # fmt: skip
def test_an_unknown_architecture_is_read_by_its_fields_and_says_so(config: Config) -> None:
    geometry = read_shape(config)
    assert geometry.layers == read_shape(LLAMA).layers
    assert any("read as a plain transformer" in note for note in geometry.notes)


@pytest.mark.parametrize(
    ("config", "kind"), [(MIXTURE, Experts), (DEEPSEEK, Experts), (GPT_OSS, Experts)]
)
def test_unknown_mixtures(config: Config, kind: type) -> None:
    known = read_shape(config)
    unknown = read_shape(config | {"architectures": ["NewForCausalLM"], "model_type": "new"})
    assert isinstance(unknown.layers[-1].feed_forward, kind)
    assert [layer.feed_forward for layer in unknown.layers] == [
        layer.feed_forward for layer in known.layers
    ]


def test_unknown_latent_attention() -> None:
    config = DEEPSEEK | {"architectures": ["NewForCausalLM"], "model_type": "new"}
    assert isinstance(read_shape(config).layers[0].attention, Latent)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"architectures": ["JambaForCausalLM"]}, "architectures"),
        ({"architectures": ["Llama4ForConditionalGeneration"]}, "architectures"),
        ({"compress_ratios": [0, 4]}, "compress_ratios"),
        ({"sparse_attention_config": {}}, "sparse_attention_config"),
        ({"linear_attn_config": {}}, "linear_attn_config"),
        ({"attention_chunk_size": 8192}, "attention_chunk_size"),
        ({"num_kv_shared_layers": 15}, "num_kv_shared_layers"),
        ({"attn_type_list": [0, 1, 1, 1]}, "attn_type_list"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
    ],
)
def test_what_no_rule_describes_is_refused(changes: Config, field: str) -> None:
    with pytest.raises(BadFile, match=f"^.*{field}: cannot be planned: "):
        read_shape(LLAMA | changes)


@pytest.mark.parametrize(
    "changes", [{"num_kv_shared_layers": 0}, {"attn_type_list": [1] * 4}, {"block_configs": None}]
)
def test_what_is_switched_off_is_no_reason(changes: dict[str, Any]) -> None:
    assert read_shape(LLAMA | changes).layers == read_shape(LLAMA).layers
