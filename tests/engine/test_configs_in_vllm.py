"""Our reading of config.json against that of the vLLM that is installed, field by field. One child
with the runtime's Python reads them all."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serve.engine.runtime import Runtime
from serve.errors import BadFile
from serve.geometry.config import read_shape
from serve.shape import Attention, Experts, Geometry, Heads, Latent, Linear
from tests.geometry.samples import (
    ALL,
    CHATGLM,
    GPT_OSS,
    HYBRID,
    LLAMA,
    PUBLISHED,
    QWEN3,
    Config,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

WINDOW: Config = {"sliding_window": 64, "head_dim": 256}
GEMMA2 = LLAMA | WINDOW | {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2"}
GEMMA3 = LLAMA | WINDOW | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
MISTRAL: Config = LLAMA | {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
VARIED: dict[str, Config] = {
    "linear rope": LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "yarn": LLAMA | {"rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}},
    "float32": LLAMA | {"torch_dtype": "float32"},
    "float16": LLAMA | {"torch_dtype": "float16"},
    "tied": LLAMA | {"tie_word_embeddings": True},
    "no dtype": {k: v for k, v in LLAMA.items() if k != "torch_dtype"},
    "the longest wins": LLAMA | {"model_max_length": 16384},
    "a window switched off": QWEN3 | {"sliding_window": 64},
    "mistral": MISTRAL | {"sliding_window": None},
    "gemma2": GEMMA2,
    "gemma3": GEMMA3 | {"num_hidden_layers": 7},
    "gpt-oss the other way": GPT_OSS | {
        "layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2},
    "hybrid of two": HYBRID | {"full_attention_interval": 2},
}  # fmt: skip
# Its tables have padded_vocab_size rows (chatglm.py), which this reading does not look at.
PADDED = {"chatglm": CHATGLM | {"vocab_size": CHATGLM["padded_vocab_size"]}}
CONFIGS: dict[str, Config] = {
    **ALL, **VARIED, **PADDED, **{path.stem: json.loads(path.read_text()) for path in PUBLISHED},
}  # fmt: skip


@pytest.fixture(scope="module")
def vllm(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the installed vLLM makes of each."""
    root = tmp_path_factory.mktemp("configs")
    folders = {name: written(root / str(at), name) for at, name in enumerate(CONFIGS)}
    done = subprocess.run(
        [str(runtime.python), str(Path(__file__).with_name("read_configs.py"))],
        input=json.dumps(folders), capture_output=True, text=True, timeout=220,
        env={"HOME": str(root), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def written(folder: Path, name: str) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
    return str(folder)


def ours(geometry: Geometry) -> dict[str, Any]:
    """The same fields as vLLM's answer has."""
    attentions = [layer.attention for layer in geometry.layers]
    softmax = next(each for each in attentions if not isinstance(each, Linear))
    blocks = [layer.feed_forward for layer in geometry.layers]
    return {
        "layers": len(geometry.layers), "heads": softmax.heads, **_width(softmax),
        "hidden": geometry.hidden, "vocab": geometry.vocab,
        "experts": max(b.count if isinstance(b, Experts) else 0 for b in blocks),
        "max_position": geometry.max_position, "dtype": f"torch.{geometry.dtype}",
        "is_tied": geometry.is_tied, "layer_types": [_kind(each) for each in attentions],
    }  # fmt: skip


def _width(attention: Heads | Latent) -> dict[str, Any]:
    if isinstance(attention, Latent):
        return {"is_latent": True, "head_dim": attention.kv_rank + attention.rope_dim}
    return {
        "is_latent": False, "head_dim": attention.head_dim, "kv_heads": attention.kv_heads,
    }  # fmt: skip


def _kind(attention: Attention) -> str:
    if isinstance(attention, Linear):
        return "linear_attention"
    is_window = isinstance(attention, Heads) and attention.window is not None
    return "sliding_attention" if is_window else "full_attention"


@pytest.mark.parametrize("name", CONFIGS)
def test_we_read_what_vllm_reads(name: str, vllm: dict[str, dict[str, Any]]) -> None:
    theirs = vllm[name]
    try:
        mine = ours(read_shape(CONFIGS[name]))
    except BadFile as refusal:
        assert "cannot be planned" in refusal.problem
        pytest.skip(f"refused: {refusal.problem}")
    assert "problem" not in theirs, theirs
    if theirs["layer_types"] is None or mine["is_latent"]:
        del mine["layer_types"]
    assert mine == {field: theirs[field] for field in mine}
