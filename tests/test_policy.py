"""What an operator allows: three lists, and the rule that refuses is named."""

from dataclasses import replace
from pathlib import Path

import pytest

from serve.catalog.spec import License, ModelSpec
from serve.cli.errors import tell
from serve.errors import NotAllowed
from serve.policy import Policy
from serve.sources import BundleSource, DirSource, HubSource, ModelScopeSource, Source

QWEN = ModelSpec(
    "qwen3-8b", "qwen3", HubSource("Qwen/Qwen3-8B"), License("Apache-2.0", "yes"),
    "Qwen3ForCausalLM", 40960, "8B",
)  # fmt: skip
LLAMA = replace(
    QWEN, name="llama", source=HubSource("meta-llama/Llama-3.1-8B"),
    license=License("Llama-3.1", "conditions"),
)  # fmt: skip


def refusal(policy: Policy, spec: ModelSpec) -> str | None:
    try:
        policy.check(spec)
    except NotAllowed as error:
        assert error.name == spec.name
        return f"{error.rule}: {error.value}"
    return None


def test_without_rules_everything_is_allowed() -> None:
    assert refusal(Policy(), LLAMA) is None


@pytest.mark.parametrize(
    ("policy", "spec", "expected"),
    [
        (Policy(licenses=("Apache-2.0",)), QWEN, None),
        (Policy(licenses=("apache-2.0", "mit")), QWEN, None),
        (Policy(licenses=("commercial:yes",)), QWEN, None),
        (Policy(licenses=("commercial:yes",)), LLAMA, "policy.licenses: Llama-3.1"),
        (Policy(licenses=("commercial:yes", "llama-*")), LLAMA, None),
        (Policy(licenses=("commercial:conditions",)), QWEN, "policy.licenses: Apache-2.0"),
        (Policy(sources=("hf",)), QWEN, None),
        (Policy(sources=("bundle", "dir")), QWEN, "policy.sources: hf"),
        (Policy(repos=("Qwen/*", "THUDM/*")), QWEN, None),
        (Policy(repos=("qwen/*",)), QWEN, None),
        (Policy(repos=("Qwen/*",)), LLAMA, "policy.repos: meta-llama/Llama-3.1-8B"),
        (Policy(repos=("Qwen/Qwen3-8",)), QWEN, "policy.repos: Qwen/Qwen3-8B"),
        (Policy(repos=("Qwen",)), QWEN, "policy.repos: Qwen/Qwen3-8B"),
        (Policy(("commercial:yes",), ("hf",), ("Qwen/*",)), QWEN, None),
        (Policy(("commercial:yes",), ("hf",), ("other/*",)), QWEN, "policy.repos: Qwen/Qwen3-8B"),
    ],
)
def test_every_list_must_allow_it(policy: Policy, spec: ModelSpec, expected: str | None) -> None:
    assert refusal(policy, spec) == expected


@pytest.mark.parametrize(
    ("source", "kind"),
    [(HubSource("a/b"), "hf"), (ModelScopeSource("a/b"), "modelscope"),
     (DirSource(Path("/a")), "dir"), (BundleSource(Path("/a")), "bundle")],
)  # fmt: skip
def test_kinds_of_sources(source: Source, kind: str) -> None:
    spec = replace(QWEN, source=source)
    assert refusal(Policy(sources=(kind,)), spec) is None
    assert refusal(Policy(sources=("wheel",)), spec) == f"policy.sources: {kind}"


def test_how_and_whence_weights_really_came_counts() -> None:
    policy = Policy(sources=("bundle",), repos=("Qwen/*",))
    policy.check(QWEN, "bundle")
    policy.check(LLAMA, "bundle", "Qwen/other")
    with pytest.raises(NotAllowed) as caught:
        policy.check(QWEN, "bundle", "elsewhere/Qwen3-8B")
    assert (caught.value.rule, caught.value.value) == ("policy.repos", "elsewhere/Qwen3-8B")


def test_the_refusal_in_words() -> None:
    with pytest.raises(NotAllowed) as caught:
        Policy(licenses=("MIT", "Apache-2.0")).check(LLAMA)
    told = tell(caught.value)
    assert told.sentence == (
        "policy.licenses does not allow llama: Llama-3.1 (allowed: MIT, Apache-2.0)"
    )
    assert told.hint is not None and "policy.licenses" in told.hint and told.exit_code == 4
