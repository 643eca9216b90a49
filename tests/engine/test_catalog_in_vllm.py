"""models.yaml against the vLLM that is installed: every name in it is one that this vLLM knows, and
every extension one that it accepts. One child with the runtime's Python answers all questions."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serve.catalog import ModelSpec, load_catalog
from serve.engine.runtime import Runtime
from serve.sources import HubSource
from tests.engine.conftest import vllm_cache
from tests.plan.known import FACTS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

ENTRIES = [spec for spec in load_catalog().specs if spec.variant_of is None]
# What vLLM must find in a config.json before it looks at positions.
SHAPE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "rope_theta": 1000000.0, "num_experts": 4,
    "moe_intermediate_size": 64, "num_experts_per_tok": 2, "torch_dtype": "bfloat16",
}  # fmt: skip
MODEL_TYPES = {
    "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3", "Qwen3MoeForCausalLM": "qwen3_moe",
}  # fmt: skip
EXTENDED = [spec for spec in ENTRIES if spec.extension is not None and spec.extension.engine_args]


def overrides(spec: ModelSpec) -> dict[str, Any]:
    assert spec.extension is not None and spec.extension.engine_args is not None
    value: dict[str, Any] = json.loads(str(dict(spec.extension.engine_args)["hf-overrides"]))
    return value


def published(spec: ModelSpec) -> Path | None:
    """The config.json of this entry in the folder of facts, if it lies there."""
    if not isinstance(spec.source, HubSource):
        return None
    file = FACTS / "configs" / f"{spec.source.repo.replace('/', '__')}.json"
    return file if file.exists() else None


NAMED = [spec for spec in ENTRIES if spec.remote_code == "unneeded" and published(spec)]


@pytest.fixture(scope="module")
def vllm(runtime: Runtime, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the installed vLLM answers."""
    folder = tmp_path_factory.mktemp("configs")
    configs = {}
    for spec in EXTENDED:
        shape = SHAPE | {
            "architectures": [spec.architecture],
            "model_type": MODEL_TYPES[spec.architecture],
            "max_position_embeddings": spec.context_tokens,
        }
        assert spec.extension is not None
        configs[spec.name] = {
            "folder": written(folder / spec.name, json.dumps(shape)),
            "overrides": overrides(spec),
            "context": spec.extension.context_tokens,
        }
    for spec in NAMED:
        file = published(spec)
        assert file is not None
        configs[f"{spec.name} as published"] = {
            "folder": written(folder / f"{spec.name}-published", file.read_text()),
            "overrides": {},
            "context": spec.context_tokens,
        }
    script = Path(__file__).with_name("read_catalog.py")
    done = subprocess.run(
        [str(runtime.python), str(script)], input=json.dumps({"configs": configs}),
        capture_output=True, text=True, timeout=220,
        env={
            "HOME": str(folder), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(vllm_cache(runtime, cache)),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def written(folder: Path, config: str) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(config)
    return str(folder)


def test_every_architecture_is_one_of_vllms(vllm: dict[str, Any]) -> None:
    assert {spec.architecture for spec in ENTRIES} <= set(vllm["architectures"])


def test_every_parser_and_tokenizer_mode_is_one_of_vllms(vllm: dict[str, Any]) -> None:
    templates = {spec.facts.tool_template for spec in ENTRIES} - {None}
    tools = {spec.tool_call_parser for spec in ENTRIES} - {None}
    tools |= {template.parser for template in templates if template is not None}
    assert tools <= set(vllm["tool_parsers"])
    thoughts = {spec.reasoning_parser for spec in ENTRIES} - {None}
    assert thoughts <= set(vllm["reasoning_parsers"])
    modes = {dict(spec.engine_args).get("tokenizer-mode", "hf") for spec in ENTRIES}
    assert modes <= set(vllm["tokenizer_modes"])


@pytest.mark.parametrize("spec", EXTENDED, ids=lambda spec: str(spec.name))
def test_vllm_accepts_the_extension(spec: ModelSpec, vllm: dict[str, Any]) -> None:
    answer = vllm["configs"][spec.name]
    assert answer["problem"] is None
    assert spec.extension is not None
    assert answer["context"] == spec.extension.context_tokens
    assert answer["rope"] == overrides(spec)["rope_parameters"]


@pytest.mark.parametrize("spec", NAMED, ids=lambda spec: str(spec.name))
def test_vllm_reads_the_config_without_the_python_it_names(
    spec: ModelSpec, vllm: dict[str, Any]
) -> None:
    file = published(spec)
    assert file is not None
    answer = vllm["configs"][f"{spec.name} as published"]
    assert answer["problem"] is None and answer["context"] == spec.context_tokens
