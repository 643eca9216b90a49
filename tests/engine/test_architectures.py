"""One tiny random model of each architecture in models.yaml, with the catalog's own flags."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.catalog import Extension, ModelSpec, load_catalog
from serve.geometry import read_geometry
from serve.hardware import read_machine
from serve.plan import Subject, Wishes, make_plan
from serve.sources import DirSource
from tests.engine.pools import Turns

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

# What cannot be tried on a CPU, or not without the real repository.
NOT_HERE = {
    "DeepseekV32ForCausalLM": "vLLM has no sparse attention for CPUs",
    "GlmMoeDsaForCausalLM": "vLLM has no sparse attention for CPUs",
    "MiniMaxM2ForCausalLM": "vLLM's experts for CPUs have no sigmoid scoring without groups",
    "ChatGLMModel": "its tokenizer is Python of its repository",
}
SPECS: dict[str, ModelSpec] = {}
for spec in load_catalog().specs:
    if spec.architecture not in NOT_HERE:
        SPECS.setdefault(spec.architecture, spec)
# The wish keeps so many engines in a row small; everything else is what a user gets.
WISHES = Wishes(device="cpu", context_tokens=512, kv_cache_bytes=256 * 2**20)


@pytest.mark.parametrize("architecture", sorted(SPECS))
def test_the_architecture_loads_with_the_catalogs_flags_and_answers(
    architecture: str, turns: Turns, models: Path
) -> None:
    spec = replace(SPECS[architecture], source=DirSource(models / architecture))
    first, second = answers(spec, "Hello", WISHES, turns)
    assert first["usage"]["completion_tokens"] == 8
    assert first["choices"][0]["message"] == second["choices"][0]["message"]


def test_a_prompt_longer_than_the_config_allows_is_read_with_the_extension(
    turns: Turns, models: Path
) -> None:
    rope = {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024,
        "rope_theta": 10000.0,
    }  # fmt: skip
    overrides = json.dumps({"max_position_embeddings": 4096, "rope_parameters": rope})
    spec = replace(
        SPECS["Qwen2ForCausalLM"],
        source=DirSource(models / "Qwen2ForCausalLM"),
        context_tokens=1024,
        extension=Extension(4096, "YaRN", (("hf-overrides", overrides),)),
    )
    first, second = answers(spec, "Hello " * 2000, replace(WISHES, context_tokens=4096), turns)
    assert first["usage"]["prompt_tokens"] > 2000
    assert first["choices"][0]["message"] == second["choices"][0]["message"]


def answers(spec: ModelSpec, prompt: str, wishes: Wishes, turns: Turns) -> list[dict[str, Any]]:
    """What an engine of this tiny model says when it is asked the same twice."""
    assert isinstance(spec.source, DirSource)
    folder = spec.source.path
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    subject = Subject(spec, folder, f"tiny-{folder.name}", size)
    config = json.loads((folder / "config.json").read_text())
    plan = make_plan(subject, read_geometry(config), read_machine(), wishes)
    engine = turns.loop.run(next(turns).pool.start(plan, "tiny-0"))
    try:
        transport = httpx.HTTPTransport(uds=str(engine.socket))
        with httpx.Client(transport=transport, base_url="http://engine", timeout=60) as client:
            body = {
                "model": spec.name, "max_tokens": 8, "temperature": 0, "ignore_eos": True,
                "messages": [{"role": "user", "content": prompt}],
            }  # fmt: skip
            replies = [client.post("/v1/chat/completions", json=body) for _ in range(2)]
        assert [reply.status_code for reply in replies] == [200, 200], replies[0].text
        return [reply.json() for reply in replies]
    finally:
        with contextlib.suppress(TimeoutError):
            turns.loop.run(engine.stop(2))
