"""models.yaml against the folder of facts that may lie beside a checkout: nothing is promised that
no source says. Without the folder these tests are skipped; what must hold anyway is in
test_models_yaml.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve.catalog import ModelSpec, load_catalog
from serve.catalog.facts import GeometryFacts
from serve.sources import HubSource, ModelScopeSource
from tests.plan.known import FACTS

if not (FACTS / "facts.yaml").exists():
    pytest.skip(f"no folder of model facts: {FACTS}", allow_module_level=True)

CATALOG = load_catalog()
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MODELS: dict[str, dict[str, Any]] = {
    model["model"]: model
    for model in yaml.load((FACTS / "facts.yaml").read_text(), _LOADER)["models"]
}
# Repositories that share an entry of the facts with another one, which is their first.
RELATIVES = {
    repo: model
    for model in MODELS.values()
    for repo in model["hf_repo_ids"]["value"]
    if repo not in MODELS
}
# Repositories that the facts do not list: from their makers' own pages.
# QwenLM/Qwen2.5-Coder and QwenLM/QwQ README; xorbitsai/inference llm_family.json.
LISTED_ELSEWHERE = ("Qwen/Qwen2.5-Coder-", "Qwen/QwQ-32B", "meta-llama/Llama-3.3-70B-Instruct",
                    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B")  # fmt: skip
# The 2507 models share an entry per size, whose parsers and sampling are told apart by kind.
KINDS = ("Instruct-2507", "Thinking-2507")


def repo(spec: ModelSpec) -> str:
    return spec.source.repo if isinstance(spec.source, HubSource) else ""


ENTRIES = [spec for spec in CATALOG.specs if spec.variant_of is None and repo(spec)]
KNOWN = [spec for spec in ENTRIES if repo(spec) in MODELS]
# Relatives share parsers, sampling and languages, but not always shape, context or licence.
RELATED = [spec for spec in ENTRIES if repo(spec) in RELATIVES]
each_known = pytest.mark.parametrize("spec", KNOWN, ids=lambda spec: str(spec.name))
each_related = pytest.mark.parametrize("spec", KNOWN + RELATED, ids=lambda spec: str(spec.name))


def fact(spec: ModelSpec, *path: str) -> tuple[Any, bool]:
    """What the facts say of this model there, and whether it is verified."""
    found: Any = MODELS.get(repo(spec)) or RELATIVES[repo(spec)]
    for key in path:
        found = found[key]
    value = found.get("value")
    if isinstance(value, dict) and set(value) & set(KINDS):
        value = next((of for kind, of in value.items() if kind in repo(spec)), None)
    return value, found["verified"] is True


def config(spec: ModelSpec) -> dict[str, Any]:
    file = MODELS[repo(spec)]["memory_config"]["config_file"]
    content: dict[str, Any] = json.loads((FACTS / file).read_text())
    return content


def test_most_entries_are_known_to_the_facts() -> None:
    assert len(KNOWN) >= 60 and len(KNOWN + RELATED) >= 70


@pytest.mark.parametrize("spec", CATALOG.specs, ids=lambda spec: str(spec.name))
def test_every_repository_is_listed(spec: ModelSpec) -> None:
    if repo(spec):
        assert (
            repo(spec) in MODELS
            or repo(spec) in RELATIVES
            or repo(spec).startswith(LISTED_ELSEWHERE)
        )


@each_related
def test_a_permission_needs_a_source(spec: ModelSpec) -> None:
    license = (MODELS.get(repo(spec)) or RELATIVES[repo(spec)])["license"]
    if spec.license.commercial == "yes":
        assert license["verified"] is True and license["commercial_free"] is True


@each_known
def test_a_restriction_is_told(spec: ModelSpec) -> None:
    license = MODELS[repo(spec)]["license"]
    if license["verified"] is True and license["commercial_free"] is not True:
        assert spec.license.commercial in ("no", "conditions")


@each_related
def test_parsers_need_a_source(spec: ModelSpec) -> None:
    for key, ours in (
        ("tool_call_parser", spec.tool_call_parser),
        ("reasoning_parser", spec.reasoning_parser),
    ):
        value, is_verified = fact(spec, "vllm", key)
        if ours is not None:
            assert is_verified and ours in str(value).split()
    template = spec.facts.tool_template
    if template is not None:
        assert (template.parser, True) == fact(spec, "vllm", "tool_call_parser")


@each_known
def test_contexts_are_those_of_the_source(spec: ModelSpec) -> None:
    context = MODELS[repo(spec)]["context"]
    made_for = spec.context_tokens
    if spec.family == "qwen3":  # 32,768 of prompt and 8,192 of answer
        made_for -= 8192
    if context["verified"] is True:
        assert made_for == context["native"]
    else:
        assert made_for <= context["native"]
    if spec.extension is not None:
        assert context["verified"] is True
        said = {"1M (DCA)": 1_000_000}.get(context["extended"], context["extended"])
        assert spec.extension.context_tokens == said


@each_known
def test_yarn_keeps_the_rope_base_of_the_published_config(spec: ModelSpec) -> None:
    args = dict(spec.extension.engine_args or ()) if spec.extension else {}
    if "hf-overrides" in args:
        rope = json.loads(str(args["hf-overrides"]))["rope_parameters"]
        assert rope["rope_theta"] == config(spec)["rope_theta"]
        assert rope["original_max_position_embeddings"] in (spec.context_tokens, 32768)


@each_related
def test_languages_and_sampling_need_a_source(spec: ModelSpec) -> None:
    languages, is_verified = fact(spec, "languages")
    if spec.facts.languages:
        assert is_verified
        assert all(code in str(languages) for code in spec.facts.languages)
    advised, is_verified = fact(spec, "sampling_defaults")
    if spec.facts.sampling:
        assert is_verified
        thinking = advised.get("thinking", advised)
        assert {key: thinking[key] for key, _ in spec.facts.sampling} == dict(spec.facts.sampling)
    if spec.facts.sampling_without_thinking:
        ours = dict(spec.facts.sampling_without_thinking)
        assert {key: advised["non_thinking"][key] for key in ours} == ours


@each_known
def test_python_is_needed_where_a_source_says_so(spec: ModelSpec) -> None:
    value, is_verified = fact(spec, "vllm", "trust_remote_code")
    if value and is_verified:
        assert spec.needs_remote_code
    if is_verified and not value:
        assert not spec.needs_remote_code
    file = MODELS[repo(spec)]["memory_config"]["config_file"]
    if file and json.loads((FACTS / file).read_text()).get("auto_map"):
        assert spec.needs_remote_code or spec.remote_code == "unneeded"


# Key of ours → the names that configs use.
_CONFIG_KEYS = {
    "layers": ("num_hidden_layers", "num_layers"),
    "hidden": ("hidden_size",),
    "heads": ("num_attention_heads",),
    "vocab": ("vocab_size", "padded_vocab_size"),
    "kv_heads": ("num_key_value_heads", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels"),
    "experts": ("num_experts", "n_routed_experts", "num_local_experts"),
    "experts_per_token": ("num_experts_per_tok",),
    "window": ("sliding_window",),
    "kv_lora_rank": ("kv_lora_rank",),
    "q_lora_rank": ("q_lora_rank",),
    "rope_head_dim": ("qk_rope_head_dim",),
    "nope_head_dim": ("qk_nope_head_dim",),
    "value_head_dim": ("v_head_dim",),
}


@each_known
def test_geometry_is_that_of_the_published_config(spec: ModelSpec) -> None:
    shape = spec.facts.geometry
    is_verified = MODELS[repo(spec)]["memory_config"]["verified"] is True
    assert (shape is not None) == is_verified, "geometry where it is verified, and only there"
    if shape is None:
        return
    assert set(_CONFIG_KEYS) == set(GeometryFacts.__dataclass_fields__)
    published = config(spec)
    for key, names in _CONFIG_KEYS.items():
        ours = getattr(shape, key)
        theirs = next((published[name] for name in names if published.get(name)), None)
        if key == "head_dim" and theirs is None:
            theirs = shape.hidden // shape.heads
        assert ours in (None, theirs), f"{key}: {ours}, published {theirs}"
    assert (shape.kv_lora_rank is None) == (published.get("kv_lora_rank") is None)
    assert (shape.experts is None) == all(not published.get(k) for k in _CONFIG_KEYS["experts"])


@each_known
def test_sizes_on_disk_need_a_source(spec: ModelSpec) -> None:
    if spec.facts.weights_bytes is not None:
        size = MODELS[repo(spec)]["safetensors_total_bytes"]
        assert (spec.facts.weights_bytes, True) == (size["value"], size["verified"])


# Who has the same repositories on ModelScope: xorbitsai/inference llm_family.json, and for GLM the
# facts too.
ON_MODELSCOPE = {
    "Qwen": {"Qwen"}, "deepseek-ai": {"deepseek-ai"}, "zai-org": {"ZhipuAI"}, "01-ai": {"01ai"},
    "openai": {"openai-mirror"}, "MiniMaxAI": {"MiniMax"}, "meta-llama": {"LLM-Research"},
}  # fmt: skip


@pytest.mark.parametrize("spec", CATALOG.specs, ids=lambda spec: str(spec.name))
def test_organisations_on_modelscope(spec: ModelSpec) -> None:
    for source in spec.alternatives:
        assert isinstance(source, ModelScopeSource)
        assert source.repo.split("/")[0] in ON_MODELSCOPE[repo(spec).split("/")[0]]
        name = repo(spec).split("/")[1]
        assert source.repo.split("/")[1] in (name, f"Meta-{name}")


def test_the_folder_holds_a_config_for_each_known_entry() -> None:
    files = [MODELS[repo(spec)]["memory_config"]["config_file"] for spec in KNOWN]
    assert all(file is None or Path(FACTS / file).is_file() for file in files)
