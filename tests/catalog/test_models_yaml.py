"""The shipped entries: what must hold of each, and the traps that are easy to fall into."""

import re

import pytest

from serve.catalog import ModelSpec, load_catalog

SPECS = load_catalog().specs


def spec(name: str) -> ModelSpec:
    return next(spec for spec in SPECS if spec.name == name)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.name))
def test_an_entry_is_whole(spec: ModelSpec) -> None:
    assert spec.architecture.endswith("ForCausalLM")
    assert re.match(r"\d+(\.\d+)?[BM](, \d+(\.\d+)?B active)?$", spec.parameters)
    assert spec.context_tokens % 2048 == 0
    if spec.license.commercial != "yes":
        assert spec.license.note.endswith(".")


@pytest.mark.parametrize(
    "architecture",
    [
        "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM", "GlmForCausalLM", "Glm4ForCausalLM", "Glm4MoeForCausalLM",
        "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM",
    ],
)  # fmt: skip
def test_the_first_families_are_there(architecture: str) -> None:
    assert any(spec.architecture == architecture for spec in SPECS)


@pytest.mark.parametrize(
    ("name", "commercial"),
    [
        ("smollm2-135m-instruct", "yes"),
        ("qwen2.5-7b-instruct", "yes"),
        ("qwen2.5-3b-instruct", "no"),
        ("qwen2.5-3b-instruct:awq", "no"),
        ("qwen2.5-72b-instruct", "conditions"),
        ("qwen2-72b-instruct", "conditions"),
        ("qwen2-7b-instruct", "unknown"),
        ("glm-4-9b-chat", "conditions"),
        ("glm-4.5-air", "yes"),
        ("glm-4.6", "unknown"),
        ("deepseek-v2-lite-chat", "conditions"),
        ("deepseek-v3", "conditions"),
        ("deepseek-r1", "yes"),
        ("deepseek-r1-distill-llama-8b", "conditions"),
    ],
)
def test_licences_go_by_the_model_not_by_the_family(name: str, commercial: str) -> None:
    assert spec(name).license.commercial == commercial


@pytest.mark.parametrize(
    ("name", "tools", "thoughts"),
    [
        ("qwen2-7b-instruct", None, None),
        ("qwen2.5-7b-instruct", "hermes", None),
        ("qwen2.5-coder-7b-instruct", None, None),
        ("qwen3-8b", "hermes", "qwen3"),
        ("qwen3-4b-instruct-2507", "hermes", None),
        ("qwen3-4b-thinking-2507", "hermes", "deepseek_r1"),
        ("glm-4-9b-0414", None, None),
        ("glm-z1-32b-0414", None, None),
        ("glm-4.6", "glm45", "glm45"),
        ("deepseek-v3", None, None),
        ("deepseek-v3.1", None, "deepseek_v3"),
        ("deepseek-r1", None, "deepseek_r1"),
        ("deepseek-r1-distill-qwen-7b", None, "deepseek_r1"),
    ],
)
def test_parsers(name: str, tools: str | None, thoughts: str | None) -> None:
    assert (spec(name).tool_call_parser, spec(name).reasoning_parser) == (tools, thoughts)


def test_contexts_are_what_the_makers_say_not_what_a_config_allows() -> None:
    assert spec("deepseek-v2-lite-chat").context_tokens == 32768
    assert spec("deepseek-v3").context_tokens == 131072
