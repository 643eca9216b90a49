"""`inhouse pull`, against a Hub and a ModelScope that are processes' own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import House, Inhouse
from tests.fakes.fake_hub import FakeHub
from tests.fakes.fake_modelscope import FakeModelScope
from tests.store.models import model_files

REPO = "org/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub({REPO: model_files(), "org/other": model_files(8192)}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


def test_several_models_and_plain_lines(inhouse: Inhouse, house: House, hub: FakeHub) -> None:
    catalog = house.folder / "catalog.yaml"
    entry = {"family": "qwen3", "context": 512, "parameters": "1K"}
    models = {"one": entry | {"repo": REPO}, "two": entry | {"repo": "org/other"}}
    catalog.write_text(json.dumps({"models": models}))
    ran = inhouse("pull", "one", "two")
    assert ran.code == 0
    said = ran.err.splitlines()
    assert next(line for line in said if line.startswith("org/tiny (")).endswith("5 files)")
    assert any(line.startswith("org/tiny: ") and " in " in line for line in said)
    assert any(line.startswith("org/other (") for line in said)
    assert "\r" not in ran.err and "\x1b" not in ran.err
    assert hub.commit(REPO)[:12] in ran.out and hub.commit("org/other")[:12] in ran.out


def test_the_source_is_the_operators(inhouse: Inhouse, house: House, hub: FakeHub) -> None:
    (pulled,) = json.loads(inhouse("pull", "tiny", "--source", f"hf:{REPO}", "--json").out)
    assert (pulled["kind"], pulled["source"]) == ("hf", REPO)
    assert pulled["revision"] == hub.commit(REPO)
    shown = json.loads(inhouse("show", "tiny", "--json").out)
    assert shown["weights"]["path"] == pulled["path"], (
        "what was chosen answers the name from now on"
    )


def test_a_revision_may_be_named(inhouse: Inhouse, house: House, hub: FakeHub) -> None:
    commit = hub.commit(REPO)
    (pulled,) = json.loads(inhouse("pull", "tiny", "--source", f"hf:{REPO}@{commit}", "--json").out)
    assert pulled["revision"] == commit


def test_renew_asks_for_the_revision_of_now(inhouse: Inhouse, house: House, hub: FakeHub) -> None:
    catalog = {"one": {"family": "qwen3", "context": 512, "parameters": "1K", "repo": REPO}}
    (house.folder / "catalog.yaml").write_text(json.dumps({"models": catalog}))
    (old,) = json.loads(inhouse("pull", "one", "--json").out)
    hub.repos[REPO]["tokenizer.json"] = b'{"version": "2.0"}'
    (same,) = json.loads(inhouse("pull", "one", "--json").out)
    (new,) = json.loads(inhouse("pull", "one", "--renew", "--json").out)
    assert old["revision"] == same["revision"] != new["revision"] == hub.commit(REPO)
    shown = json.loads(inhouse("show", "one", "--json").out)
    assert shown["weights"]["revision"] == new["revision"]


def test_a_folder_may_be_named(inhouse: Inhouse, house: House, tmp_path: Path) -> None:
    place = (tmp_path / "weights").rename(tmp_path / "elsewhere")
    (pulled,) = json.loads(inhouse("pull", "tiny", "--source", f"dir:{place}", "--json").out)
    assert (pulled["kind"], pulled["path"]) == ("dir", str(place))


def test_modelscope(
    inhouse: Inhouse, house: House, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    with FakeModelScope({REPO: model_files()}) as scope:
        settings = house.folder / "inhouse.yaml"
        settings.write_text(
            json.dumps(json.loads(settings.read_text()) | {"hub": {"modelscope": scope.endpoint}})
        )
        ran = inhouse("pull", "tiny", "--source", f"modelscope:{REPO}", "--json")
    (pulled,) = json.loads(ran.out)
    assert pulled["kind"] == "modelscope"
    assert Path(pulled["path"]).is_relative_to(own_home / "inhouse" / "weights")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("ftp:x", "is no kind of source"),
        ("hf:nothing", "must be ORGANISATION/NAME"),
        ("dir:", "needs a path"),
        ("wheel:x", "write --source wheel"),
        ("wheel", "tiny has no source of this kind (dir): wheel"),
        ("modelscope", "tiny has no source of this kind (dir): modelscope"),
    ],
)
def test_a_source_that_is_none(inhouse: Inhouse, house: House, source: str, problem: str) -> None:
    ran = inhouse("pull", "tiny", "--source", source)
    assert ran.code == 2
    assert "--source" in ran.err and problem in ran.err and "hint:" in ran.err
