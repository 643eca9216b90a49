"""config.json files that are missing something or contradict themselves: refused by the field's
name; and files that were damaged at random: read or refused, never anything else."""

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.errors import BadFile
from serve.geometry.config import read_shape
from serve.geometry.fields import Fields
from serve.shape import Geometry
from tests.geometry.samples import (
    ALL,
    CHATGLM,
    DEEPSEEK,
    GPT_OSS,
    HYBRID,
    LLAMA,
    MIXTURE,
    NESTED,
    PUBLISHED,
    SPARSE,
    Config,
)

DENSE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads",
         "intermediate_size", "vocab_size")  # fmt: skip
MIXED = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
LATENT = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim",
          "n_routed_experts")  # fmt: skip
LINEAR = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim",
          "linear_value_head_dim", "linear_conv_kernel_dim")  # fmt: skip
DECISIVE = [
    *((LLAMA, field) for field in DENSE),
    *((MIXTURE, field) for field in MIXED),
    *((DEEPSEEK, field) for field in LATENT),
    *((SPARSE, field) for field in ("index_n_heads", "index_head_dim", "index_topk")),
    *((HYBRID, field) for field in LINEAR),
    *((GPT_OSS, field) for field in ("num_local_experts", "num_experts_per_tok", "head_dim")),
    *((CHATGLM, field) for field in ("num_layers", "multi_query_group_num", "ffn_hidden_size")),
]
IMPOSSIBLE: dict[str, Any] = {
    "zero": 0, "negative": -1, "text": "8", "bool": True, "float": 8.0, "large": 10**12,
    "larger than Python writes": 10**5000, "list": [8], "object": {}, "nan": float("nan"),
}  # fmt: skip


def _name(value: Any) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize("kind", IMPOSSIBLE)
@pytest.mark.parametrize(
    ("config", "field"), DECISIVE, ids=lambda v: v if isinstance(v, str) else ""
)
def test_an_impossible_value_of_a_decisive_field(config: Config, field: str, kind: str) -> None:
    with pytest.raises(BadFile) as caught:
        read_shape(config | {field: IMPOSSIBLE[kind]})
    assert caught.value.path == "config.json"
    assert caught.value.problem.startswith(f"{field}: ")


# index_topk is what says that there is an index; head_dim may be left out where it can be counted.
MAY_BE_MISSING = {"index_topk", "head_dim"}
CALLED_OTHERWISE = {
    "num_layers": "num_hidden_layers", "multi_query_group_num": "num_key_value_heads",
    "ffn_hidden_size": "intermediate_size",
}  # fmt: skip


@pytest.mark.parametrize("empty", ["missing", "null"])
@pytest.mark.parametrize(
    ("config", "field"),
    [pair for pair in DECISIVE if pair[1] not in MAY_BE_MISSING],
    ids=_name,
)
def test_a_decisive_field_that_is_missing(config: Config, field: str, empty: str) -> None:
    damaged = config | {field: None}
    if empty == "missing":
        del damaged[field]
    with pytest.raises(BadFile) as caught:
        read_shape(damaged)
    name = CALLED_OTHERWISE.get(field, field)
    if field in ("num_experts", "n_routed_experts", "num_local_experts"):
        name = "num_experts"
    assert caught.value.problem.startswith(f"{name}: is missing")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (LLAMA | {"num_key_value_heads": 3}, "num_key_value_heads: 3 does not divide"),
        (LLAMA | {"num_key_value_heads": 16}, "num_key_value_heads: 16 does not divide"),
        (LLAMA | {"num_attention_heads": 7, "num_key_value_heads": 7}, "head_dim: is missing, and"),
        # gpt-oss: transformers would take 64 where 256 / 8 is 32.
        ({k: v for k, v in GPT_OSS.items() if k != "head_dim"}, "head_dim: is missing; 256 / 8"),
        (CHATGLM | {"num_hidden_layers": 5}, "num_layers: 4 contradicts num_hidden_layers, 5"),
        (LLAMA | {"rotary_dim": 64}, "rotary_dim: 64 is more than head_dim, 32"),
        (LLAMA | {"partial_rotary_factor": 1.5}, "partial_rotary_factor: must be at most 1"),
        (LLAMA | {"partial_rotary_factor": "half"}, "partial_rotary_factor: must be a number"),
        (LLAMA | {"rope_scaling": [4]}, "rope_scaling: must be an object"),
        (LLAMA | {"rope_scaling": {"type": "linear", "factor": -2}}, "factor: must be above 0"),
        (LLAMA | {"rope_scaling": {"type": "linear", "factor": 1e300}}, "factor: must be above 0"),
        (LLAMA | {"max_position_embeddings": 0}, "max_position_embeddings: must be from 1"),
        (LLAMA | {"max_position_embeddings": 2**40}, "max_position_embeddings: must be from 1"),
        (LLAMA | {"tie_word_embeddings": "yes"}, "tie_word_embeddings: must be true or false"),
        (LLAMA | {"torch_dtype": "int4"}, "dtype: cannot be planned: 'int4'"),
        (LLAMA | {"torch_dtype": 16}, "torch_dtype: must be a text"),
        (LLAMA | {"dtype": "float16"}, "torch_dtype: 'bfloat16' contradicts dtype, 'float16'"),
        (LLAMA | {"architectures": "LlamaForCausalLM"}, "architectures: must be a list"),
        (LLAMA | {"architectures": [1]}, r"architectures\[0\]: must be a text"),
        (LLAMA | {"quantization_config": "awq"}, "quantization_config: must be an object"),
        (NESTED | {"text_config": []}, "text_config: must be an object"),
        (NESTED | {"text_config": {}}, "num_hidden_layers: is missing"),
        ({}, "num_hidden_layers: is missing"),
    ],
)  # fmt: skip
def test_contradictions(config: Config, problem: str) -> None:
    with pytest.raises(BadFile, match=problem):
        read_shape(config)


@pytest.mark.parametrize("content", [None, [], "config", 3])
def test_a_file_that_is_no_object(content: Any) -> None:
    with pytest.raises(BadFile, match="must be an object"):
        read_shape(content)


def test_many_layers_are_refused_before_they_are_made() -> None:
    with pytest.raises(BadFile, match="num_hidden_layers: must be from 1 to 4096: 10000000"):
        read_shape(LLAMA | {"num_hidden_layers": 10_000_000})


def test_null_is_missing() -> None:
    fields = Fields({"a": None, "b": 3})
    assert not fields.has("a") and fields.has("b")
    assert fields.optional("a") is None and fields.optional("a", "b") == 3
    assert fields.flag("a", True) and fields.word("a") is None and fields.table("a") is None


FILES = [json.loads(path.read_text(encoding="utf-8")) for path in PUBLISHED] or list(ALL.values())
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([0, -1, 1, 10**12, "auto", "full_attention", "fp8", float("inf")]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside a JSON value; of long lists, of the first entries."""
    if isinstance(value, dict):
        below = list(value.items())
    else:
        below = list(enumerate(value[:3])) if isinstance(value, list) else []
    return [place for key, each in below for place in ((*path, key), *_places(each, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn) -> Config:
    """A published file in which one to three values were replaced or removed."""
    config: Config = copy.deepcopy(draw(st.sampled_from([*FILES, *ALL.values()])))
    for _ in range(draw(st.integers(1, 3))):
        places = _places(config)
        if not places:
            break
        *path, last = draw(st.sampled_from(places))
        owner: Any = config
        for key in path:
            owner = owner[key]
        if draw(st.booleans()):
            owner[last] = draw(JUNK)
        else:
            del owner[last]
    return config


@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(damaged())
def test_a_damaged_file_is_read_or_refused(config: Config) -> None:
    try:
        geometry = read_shape(config)
    except BadFile as refusal:
        assert refusal.path == "config.json" and refusal.problem
    else:
        assert isinstance(geometry, Geometry) and geometry.layers
        assert geometry.hidden > 0 and geometry.vocab > 0 and geometry.rotary_dim >= 0
