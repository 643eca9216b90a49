"""A repository's own Python: refused, left out, or approved for one revision and no other."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve.catalog import ModelSpec
from serve.errors import UnsafeWeights, WeightsDamaged
from serve.sources import DirSource, HubSource
from serve.store import Store
from serve.store.approval import SETTINGS, without_code
from tests.fakes.fake_hub import FakeHub
from tests.store.models import FETCHED, REPO, Recorder, model_files, spec, store_at

AUTO_MAP = {"AutoConfig": "configuration_tiny.TinyConfig", "AutoModel": "modeling_tiny.Tiny"}
PYTHON = {
    "configuration_tiny.py": b"print('configuration ran')",
    "modeling_tiny.py": b"raise SystemExit('remote code ran')",
    "helper.py": b"",
}


def repo_files(**settings: dict[str, Any]) -> dict[str, bytes]:
    """A repository with Python, whose config.json names it; `settings` by the file's stem."""
    files = model_files() | PYTHON
    contents = {"config": {"architectures": ["Tiny"], "auto_map": AUTO_MAP}} | settings
    return files | {f"{stem}.json": json.dumps(content).encode() for stem, content in
                    contents.items()}  # fmt: skip


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: repo_files()}) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path, hub: FakeHub) -> Store:
    return store_at(tmp_path, hub.endpoint)


def model(remote_code: str | None = None, revision: str = "main") -> ModelSpec:
    return replace(spec(HubSource(REPO, revision)), remote_code=remote_code)


def texts(folder: Path) -> str:
    """All of a view's settings as one text."""
    return "".join((folder / name).read_text() for name in SETTINGS if (folder / name).exists())


def python_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.py")}


TOKENIZER = {"auto_map": {"AutoTokenizer": ["tokenization_tiny.TinyTokenizer", None]}}


@pytest.mark.parametrize(
    ("settings", "file"),
    [
        ({}, "config.json"),
        ({"config": {}, "tokenizer_config": TOKENIZER}, "tokenizer_config.json"),
        ({"config": {}, "tokenizer_config": {"auto_map": ["a.B", None]}}, "tokenizer_config.json"),
        ({"config": {}, "processor_config": {"auto_map": AUTO_MAP}}, "processor_config.json"),
        ({"config": {}, "preprocessor_config": {"auto_map": AUTO_MAP}}, "preprocessor_config.json"),
        ({"config": {"text_config": {"auto_map": AUTO_MAP}}}, "config.json"),
        ({"config": {"vision_config": {"auto_map": {"A": "org/other--m.C"}}}}, "config.json"),
        ({"config": {"parts": [{"deep": [{"auto_map": AUTO_MAP}]}]}}, "config.json"),
        ({"config": {"custom_pipelines": {"x": {"impl": "pipe.P"}}}}, "config.json"),
    ],
)
def test_what_nobody_approved_is_refused_before_the_weights_come(
    store: Store, hub: FakeHub, settings: dict[str, Any], file: str
) -> None:
    hub.repos[REPO] = repo_files(**settings)
    for get in (store.pull, store.ready):
        with pytest.raises(UnsafeWeights) as caught:
            get(model())
        assert caught.value.file == file and "auto_map" in caught.value.reason
    assert hub.asked_for("GET", ".safetensors") == hub.asked_for("GET", "/cdn/") == []
    assert hub.asked_for("GET", ".py") == [] and store.list() == ()


@pytest.mark.parametrize("value", [None, {}, []])
def test_a_key_without_names_needs_no_approval(store: Store, hub: FakeHub, value: Any) -> None:
    hub.repos[REPO] = repo_files(config={"architectures": ["Tiny"], "auto_map": value})
    assert store.ready(model()).damage is None


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": AUTO_MAP},
        {"auto_map": AUTO_MAP, "text_config": {"auto_map": AUTO_MAP, "hidden_size": 8}},
        {"vision_config": {"auto_map": {"AutoConfig": "org/other--module.Class"}}},
    ],
)
def test_unneeded_python_is_neither_fetched_nor_named(
    store: Store, hub: FakeHub, config: dict[str, Any]
) -> None:
    hub.repos[REPO] = repo_files(config={"architectures": ["Tiny"]} | config)
    recorder = Recorder()
    weights = store.pull(model("unneeded"), recorder)
    assert [note for note in recorder.notes if "neither kept nor run" in note]
    assert hub.asked_for("GET", ".py") == [] and python_in(weights.path) == set()
    view = store.ready(model("unneeded")).view
    assert python_in(view) == set() and "auto_map" not in texts(view)
    seen = json.loads((view / "config.json").read_bytes())
    assert seen["architectures"] == ["Tiny"]
    assert seen.get("text_config", {"hidden_size": 8}) == {"hidden_size": 8}
    assert (weights.path / "config.json").read_bytes() == hub.repos[REPO]["config.json"]


def test_python_that_another_tool_fetched_stays_outside(store: Store, hub: FakeHub) -> None:
    weights = store.pull(model("unneeded"))
    for name, data in PYTHON.items():
        (weights.path / name).write_bytes(data)
    view = store.ready(model("unneeded")).view
    assert python_in(view) == set() and "auto_map" not in texts(view)
    assert {path.name for path in view.iterdir()} == FETCHED


def test_a_tokenizer_in_python_has_no_second_source(store: Store, hub: FakeHub) -> None:
    """Kimi's and GLM-4's: there is a file for tiktoken, and code that alone can read it."""
    files = repo_files(tokenizer_config=TOKENIZER)
    del files["tokenizer.json"]
    hub.repos[REPO] = files | {"tiktoken.model": b"x"}
    with pytest.raises(UnsafeWeights) as caught:
        store.pull(model("unneeded"))
    assert caught.value.file == "tokenizer_config.json"
    assert "tokenization_tiny" in caught.value.reason


@pytest.mark.parametrize("broken", [b"{}", b'{"model": {}}', b'{"model": {"vocab": {}}}'])
def test_a_tokenizer_json_without_a_vocabulary_is_no_second_source(
    store: Store, hub: FakeHub, broken: bytes
) -> None:
    hub.repos[REPO] = repo_files(tokenizer_config=TOKENIZER) | {"tokenizer.json": broken}
    with pytest.raises(UnsafeWeights):
        store.pull(model("unneeded"))


def test_a_tokenizer_json_replaces_a_tokenizer_in_python(store: Store, hub: FakeHub) -> None:
    settings = TOKENIZER | {"tokenizer_class": "TinyTokenizer", "bos_token": "<s>"}
    fast = {"tokenizer.json": b'{"model": {"type": "BPE", "vocab": {"a": 0}}}'}
    hub.repos[REPO] = repo_files(tokenizer_config=settings) | fast
    view = store.ready(model("unneeded")).view
    seen = json.loads((view / "tokenizer_config.json").read_bytes())
    assert seen == {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}


def test_a_class_of_transformers_itself_is_kept() -> None:
    settings = TOKENIZER | {"tokenizer_class": "Qwen2Tokenizer"}
    plain = without_code(json.dumps(settings).encode(), "tokenizer_config.json")
    assert json.loads(plain) == {"tokenizer_class": "Qwen2Tokenizer"}


def test_files_without_names_of_python_are_kept_byte_for_byte() -> None:
    for text in (b'{"a":1}', b'{ "auto_map": {} }', b'{"x": {"auto_map": []}}'):
        assert without_code(text, "config.json") == text
    assert without_code(b"not even JSON", "merges.txt") == b"not even JSON"


def test_approved_python_is_taken_hashed_and_announced(store: Store, hub: FakeHub) -> None:
    approved = model(hub.commit(REPO))
    recorder = Recorder()
    weights = store.pull(approved, recorder)
    sealed = {one.path for one in store.manifest(approved).files}
    assert set(PYTHON) <= sealed
    [note] = [note for note in recorder.notes if "RUNS PYTHON" in note]
    assert "modeling_tiny.py" in note
    view = store.ready(approved).view
    assert python_in(view) == set(PYTHON)
    assert (view / "config.json").read_bytes() == hub.repos[REPO]["config.json"]
    assert store.verify(weights).damage is None


def test_each_load_of_approved_python_is_announced(store: Store, hub: FakeHub) -> None:
    approved = model(hub.commit(REPO))
    store.pull(approved)
    recorder = Recorder()
    store.ready(approved, recorder)
    assert any("RUNS PYTHON" in note for note in recorder.notes)


def test_approved_python_that_was_changed_is_damage(store: Store, hub: FakeHub) -> None:
    approved = model(hub.commit(REPO))
    weights = store.pull(approved)
    with (weights.path / "modeling_tiny.py").resolve().open("ab") as file:
        file.write(b"\nimport os")
    with pytest.raises(WeightsDamaged) as caught:
        store.ready(approved)
    assert caught.value.file == "modeling_tiny.py"


def test_an_approval_is_for_one_revision(store: Store, hub: FakeHub) -> None:
    other = "0" * 40
    with pytest.raises(UnsafeWeights) as caught:
        store.pull(model(other))
    assert other in caught.value.reason and hub.commit(REPO) in caught.value.reason
    assert hub.asked_for("GET", ".py") == [] and store.list() == ()


def test_weights_that_were_held_are_refused_under_another_approval(
    store: Store, hub: FakeHub
) -> None:
    store.pull(model("unneeded"))
    for get in (store.pull, store.ready):
        with pytest.raises(UnsafeWeights) as caught:
            get(model("0" * 40))
        assert hub.commit(REPO) in caught.value.reason
        with pytest.raises(UnsafeWeights):
            get(model())


def test_an_approval_that_comes_later_fetches_what_is_missing(store: Store, hub: FakeHub) -> None:
    plain = store.ready(model("unneeded"))
    approved = model(hub.commit(REPO))
    hub.requests.clear()
    weights = store.ready(approved)
    assert python_in(weights.view) == set(PYTHON) and weights.digest != plain.digest
    assert hub.asked_for("GET", "/cdn/") == [], "the weights are here"


def test_an_approval_that_is_taken_back_takes_the_python_along(store: Store, hub: FakeHub) -> None:
    approved = store.ready(model(hub.commit(REPO)))
    assert python_in(approved.view)
    plain = store.ready(model("unneeded"))
    assert python_in(plain.view) == set() and "auto_map" not in texts(plain.view)
    with pytest.raises(UnsafeWeights):
        store.ready(model())


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("org/other--modeling_tiny.Tiny", "another repository"),
        ("missing.Tiny", "not there"),
        ("../modeling_tiny.Tiny", "not there"),
        ("/etc/x.Tiny", "not there"),
    ],
)
def test_python_elsewhere_is_not_approved_with_it(
    store: Store, hub: FakeHub, reference: str, reason: str
) -> None:
    hub.repos[REPO] = repo_files(config={"auto_map": {"AutoModel": reference}})
    with pytest.raises(UnsafeWeights, match=re.escape(reason)):
        store.pull(model(hub.commit(REPO)))


def test_a_folder_has_no_revision_to_approve(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    for name, data in repo_files().items():
        if "/" not in name:
            (root / name).write_bytes(data)
    mine = replace(spec(DirSource(root)), remote_code="1" * 40)
    with pytest.raises(UnsafeWeights):
        store_at(tmp_path).pull(mine)
    assert python_in(store_at(tmp_path).ready(replace(mine, remote_code="unneeded")).view) == set()
