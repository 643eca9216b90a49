"""The shipped entries: what must hold of each, and the traps that are easy to fall into."""

import json
import re

import pytest

from serve.catalog import ModelSpec, load_catalog

SPECS = load_catalog().specs


def spec(name: str) -> ModelSpec:
    return next(spec for spec in SPECS if spec.name == name)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.name))
def test_an_entry_is_whole(spec: ModelSpec) -> None:
    assert spec.architecture.endswith(("ForCausalLM", "ChatGLMModel"))
    assert re.match(r"\d+(\.\d+)?[BM](, \d+(\.\d+)?B active)?$", spec.parameters)
    assert spec.context_tokens % 2048 == 0
    if spec.license.commercial != "yes":
        assert spec.license.note.endswith(".")


def test_there_are_many() -> None:
    entries = [spec for spec in SPECS if spec.variant_of is None]
    assert len(entries) >= 70
    assert len(SPECS) >= 2 * len(entries)


@pytest.mark.parametrize(
    "part",
    [
        "qwen2-", "qwen2.5-", "qwen2.5-coder-", "qwq-32b", "qwen3-", "qwen3-coder-", "-2507",
        "glm-4-9b-chat", "glm-4-9b-0414", "glm-z1-", "glm-4.5", "glm-4.5-air", "glm-4.6", "glm-4.7",
        "glm-5", "deepseek-v2-lite", "deepseek-v2.5", "deepseek-v3", "deepseek-v3-0324",
        "deepseek-v3.1", "deepseek-v3.2", "deepseek-r1", "deepseek-r1-0528",
        "deepseek-r1-distill-qwen-1.5b", "deepseek-r1-distill-llama-70b", "deepseek-coder-v2-lite",
        "yi-1.5-6b", "yi-1.5-9b", "yi-1.5-34b", "llama-3.1-8b", "llama-3.1-70b", "llama-3.3-70b",
        "gpt-oss-20b", "gpt-oss-120b", "kimi-k2", "minimax-m2",
    ],
)  # fmt: skip
def test_the_wanted_models_are_there(part: str) -> None:
    assert any(part in spec.name for spec in SPECS)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.name))
def test_a_variant_is_named_after_its_model(spec: ModelSpec) -> None:
    if spec.variant_of is not None:
        assert spec.name.startswith(f"{spec.variant_of}:")
        assert any(each.name == spec.variant_of for each in SPECS)


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
        ("qwen2.5-coder-3b-instruct", "no"),
        ("qwen2.5-coder-7b-instruct", "unknown"),
        ("qwq-32b", "unknown"),
        ("glm-5", "unknown"),
        ("deepseek-v3-0324", "unknown"),
        ("yi-1.5-9b-chat", "yes"),
        ("llama-3.1-8b-instruct", "conditions"),
        ("gpt-oss-20b", "yes"),
        ("kimi-k2-instruct", "conditions"),
        ("minimax-m2", "conditions"),
        ("minimax-m2.5", "unknown"),
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
        ("deepseek-v3.2", "deepseek_v32", "deepseek_v3"),
        ("qwen3-coder-30b-a3b-instruct", "qwen3_coder", None),
        ("glm-4.7", "glm47", "glm45"),
        ("glm-4.7-flash", None, None),
        ("llama-3.1-8b-instruct", None, None),
        ("gpt-oss-20b", "openai", None),
        ("kimi-k2-thinking", "kimi_k2", "kimi_k2"),
        ("minimax-m2", "minimax_m2", "minimax_m2"),
        ("deepseek-r1", None, "deepseek_r1"),
        ("deepseek-r1-distill-qwen-7b", None, "deepseek_r1"),
    ],
)
def test_parsers(name: str, tools: str | None, thoughts: str | None) -> None:
    assert (spec(name).tool_call_parser, spec(name).reasoning_parser) == (tools, thoughts)


def test_contexts_are_what_the_makers_say_not_what_a_config_allows() -> None:
    assert spec("deepseek-v2-lite-chat").context_tokens == 32768
    assert spec("deepseek-v3").context_tokens == 131072


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("deepseek-v3", "tool_chat_template_deepseekv3.jinja"),
        ("deepseek-v3.1", "tool_chat_template_deepseekv31.jinja"),
        ("deepseek-r1-0528", "tool_chat_template_deepseekr1.jinja"),
        ("llama-3.1-8b-instruct", "tool_chat_template_llama3.1_json.jinja"),
    ],
)
def test_tools_that_need_a_template_say_which(name: str, file: str) -> None:
    template = spec(name).facts.tool_template
    assert template is not None and template.file == file
    assert spec(name).tool_call_parser is None, (
        "with the repository's own template it reads nothing"
    )


def test_prompts_that_no_template_writes_name_their_tokenizer_mode() -> None:
    assert dict(spec("deepseek-v3.2").engine_args) == {"tokenizer-mode": "deepseek_v32"}


@pytest.mark.parametrize("name", ["kimi-k2-instruct", "kimi-k2-thinking", "glm-4-9b-chat-original"])
def test_python_of_the_repository_is_needed_and_not_approved(name: str) -> None:
    assert spec(name).needs_remote_code and spec(name).remote_code is None


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-r1", "deepseek-v2.5", "minimax-m2"])
def test_python_that_is_named_but_not_needed_is_not_run(name: str) -> None:
    assert not spec(name).needs_remote_code and spec(name).remote_code == "unneeded"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.name))
def test_yarn_multiplies_what_it_begins_with(spec: ModelSpec) -> None:
    args = dict(spec.extension.engine_args or ()) if spec.extension else {}
    if "hf-overrides" not in args or spec.extension is None:
        return
    overrides = json.loads(str(args["hf-overrides"]))
    rope = overrides["rope_parameters"]
    stretched = rope["factor"] * rope["original_max_position_embeddings"]
    assert overrides["max_position_embeddings"] == stretched == spec.extension.context_tokens


@pytest.mark.parametrize("name", ["qwen2.5-7b-instruct", "qwen3-8b", "qwen3-235b-a22b", "qwq-32b"])
def test_qwen_can_be_extended_to_128k(name: str) -> None:
    extension = spec(name).extension_for(131072)
    assert extension is not None and extension.context_tokens == 131072


@pytest.mark.parametrize(
    "name", ["qwen2.5-3b-instruct", "qwen3-0.6b", "glm-4-32b-0414", "yi-1.5-9b-chat"]
)
def test_others_cannot(name: str) -> None:
    assert spec(name).extension_for(131072) is None


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.name))
def test_no_policy_takes_what_is_unconfirmed_for_confirmed(spec: ModelSpec) -> None:
    is_doubtful = spec.license.name.endswith("(unconfirmed)") or spec.license.name == "unknown"
    assert is_doubtful == (spec.license.commercial == "unknown")
