"""The whole way from a config.json to a geometry: what is noted, and what bad input does."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import BadFile
from serve.geometry import read_geometry, weights_per_stage
from serve.shape import Parallel
from tests.geometry import checkpoints
from tests.geometry.samples import CHATGLM, DEEPSEEK, GPT_OSS, HYBRID, LLAMA, MIXTURE, SPARSE
from tests.geometry.test_weights import GPT_OSS_20B, LLAMA_8B
from tests.plan.known import FACTS

WHOLE = (LLAMA, MIXTURE, DEEPSEEK, SPARSE, GPT_OSS, HYBRID, CHATGLM, GPT_OSS_20B)
FIELDS = (
    "attention_bias", "mlp_bias", "use_qk_norm", "use_routing_bias", "topk_method",
    "rope_scaling", "rope_parameters", "max_position_embeddings", "quantization_config",
    "tie_word_embeddings", "vision_config", "text_config", "indexer_rope_interleave",
    "add_qkv_bias", "add_bias_linear", "torch_dtype", "num_nextn_predict_layers",
)  # fmt: skip
ROPES = (
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    {"rope_type": "yarn", "factor": "4", "original_max_position_embeddings": 32768},
    {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": -1},
    {"rope_type": "yarn", "factor": 1e300, "original_max_position_embeddings": 2**30},
    {"mrope_section": [1, 2]}, {"full_attention": {"rope_type": "default"}}, [1],
)  # fmt: skip
JUNK = (
    st.none() | st.booleans() | st.integers(-5, 10**13) | st.floats() | st.text(max_size=8)
    | st.lists(st.text(max_size=4), max_size=3) | st.sampled_from(ROPES)
    | st.dictionaries(st.text(max_size=6), st.integers() | st.text(max_size=4), max_size=3)
    | st.builds(
        lambda skips: {"quant_method": "fp8", "modules_to_not_convert": skips},
        st.lists(st.text(max_size=12) | st.sampled_from(["re:(a*)*", "re:[", "*" * 20, "gate"])),
    )
)  # fmt: skip


@given(st.sampled_from(WHOLE), st.sampled_from(FIELDS), JUNK)
def test_any_field_is_read_or_refused(config: dict[str, Any], field: str, value: Any) -> None:
    try:
        geometry = read_geometry(config | {field: value})
    except BadFile as error:
        assert error.path == "config.json"
    else:
        assert weights_per_stage(geometry, Parallel())[0] > 0


def test_positions_that_are_stretched_have_the_longer_table() -> None:
    def table(**fields: Any) -> int:
        parts = read_geometry(LLAMA_8B | fields).parts
        return next(part.n_bytes for part in parts if part.place == "each")

    assert table() == 131072 * 128 * 2
    llama3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
    assert table(rope_scaling=llama3) == 131072 * 128 * 2
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert table(rope_scaling=yarn, max_position_embeddings=40960) == 131072 * 128 * 2
    assert table(rope_parameters={"mrope_section": [16]}) == 4 * 131072 * 128 * 2


def test_an_encoder_that_is_not_counted_is_said() -> None:
    nested = {"architectures": ["Qwen3VLForConditionalGeneration"], "text_config": LLAMA_8B}
    geometry = read_geometry(nested | {"vision_config": {"depth": 27}})
    assert "the encoder of images is not in the sum" in geometry.notes[-1]


def test_the_size_on_disk_is_known_from_all_headers() -> None:
    config = LLAMA_8B | {"num_hidden_layers": 2}
    tensors = checkpoints.dense(config)
    assert read_geometry(config, tensors).checkpoint_bytes == sum(one.n_bytes for one in tensors)
    assert read_geometry(config).checkpoint_bytes is None


@pytest.mark.skipif(not FACTS.exists(), reason="the folder of model facts is not there")
def test_every_published_config_is_summed_or_refused() -> None:
    refused = set()
    for file in sorted(Path(FACTS / "configs").glob("*.json")):
        try:
            geometry = read_geometry(json.loads(file.read_text()))
        except BadFile:
            refused.add(file.stem)
            continue
        assert sum(weights_per_stage(geometry, Parallel(pipeline=2))) > 2**28, file.stem
    assert {name.partition("__")[2].partition("-")[0] for name in refused} <= {
        "DeepSeek", "Kimi", "MiniMax",
    }  # fmt: skip
    assert len(refused) <= 4
