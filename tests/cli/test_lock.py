"""`inhouse lock`, and what `--locked` refuses: from the command line, with a real Hub client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CONFIG, House, Inhouse
from tests.fakes.fake_hub import FakeHub
from tests.fakes.tiny import llama_file
from tests.store.models import REPO, model_files, safetensors


@pytest.fixture
def hub(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub with the repository of `remote`, an entry beside the house's own."""
    catalog = house.folder / "catalog.yaml"
    record = json.loads(catalog.read_text())
    entry = {"family": "qwen3", "repo": REPO, "context": 512, "parameters": "1K"}
    record["models"]["remote"] = entry | {"aliases": ["far"]}
    catalog.write_text(json.dumps(record))
    files = model_files() | {"config.json": json.dumps(CONFIG).encode()}
    files["model.safetensors"] = llama_file(CONFIG)
    with FakeHub({REPO: files}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


def lock_file(house: House) -> Path:
    return house.folder / "models.lock"


def locked(house: House) -> dict[str, Any]:
    models: dict[str, Any] = json.loads(lock_file(house).read_text())["models"]
    return models


def change(hub: FakeHub, **files: bytes) -> str:
    """The repository has other files now; its new commit."""
    hub.repos[REPO] |= files
    return hub.commit(REPO)


def test_a_first_lock_pulls_and_names_everything(
    inhouse: Inhouse, house: House, hub: FakeHub
) -> None:
    ran = inhouse("lock", "far", "tiny")
    assert ran.code == 0, ran.err
    assert "remote" in ran.out and "added" in ran.out and f"hf:{REPO}" in ran.out
    assert ran.err.endswith("models.lock: 2 models, written\n")
    remote = locked(house)["remote"]
    assert (remote["source"], remote["revision"]) == (REPO, hub.commit(REPO))
    assert remote["license"] == "Apache-2.0" and len(remote["entry"]) == 64
    assert set(remote["files"]) == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
        "model.safetensors",
    }  # fmt: skip
    assert locked(house)["tiny"]["kind"] == "dir"


def test_without_names_what_the_settings_serve_then_what_is_locked(
    inhouse: Inhouse, house: House, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inhouse("lock").err.endswith("models.lock: 0 models, written\n")
    lock_file(house).unlink()
    inhouse("pull", "tiny")
    assert inhouse("lock").code == 0 and list(locked(house)) == ["tiny"]
    lock_file(house).unlink()
    monkeypatch.setenv("INHOUSE_SERVER_MODELS", "remote")
    assert inhouse("lock").code == 0 and list(locked(house)) == ["remote"]
    monkeypatch.setenv("INHOUSE_SERVER_MODELS", "tiny")
    before = lock_file(house).stat()
    assert inhouse("lock").err.endswith("models.lock: 1 model, not changed\n")
    assert lock_file(house).stat().st_mtime_ns == before.st_mtime_ns


def test_an_upgrade_shows_what_is_different_and_leaves_the_rest_as_it_is(
    inhouse: Inhouse, house: House, hub: FakeHub
) -> None:
    inhouse("lock", "remote", "tiny")
    old, lines = locked(house), lock_file(house).read_text().splitlines()
    commit = change(hub, **{"config.json": b'{"a": 1}'})
    assert inhouse("lock").code == 0, "nobody asked the Hub"
    ran = inhouse("lock", "--upgrade", "remote")
    assert ran.code == 0, ran.err
    assert f"{old['remote']['revision'][:12]} -> {commit[:12]}" in ran.out
    assert "config.json" in ran.out and "model.safetensors" not in ran.out
    changed = set(lock_file(house).read_text().splitlines()) - set(lines)
    assert len(changed) == 3, "revision, digest, one file"
    assert locked(house)["tiny"] == old["tiny"]
    again = json.loads(inhouse("lock", "--upgrade", "--json").out)
    assert (again["is_written"], again["changes"], again["refused"]) == (False, [], [])


def test_a_changed_entry_is_shown_and_refused(inhouse: Inhouse, house: House, hub: FakeHub) -> None:
    inhouse("lock", "remote", "tiny")
    before = lock_file(house).read_bytes()
    catalog = house.folder / "catalog.yaml"
    catalog.write_text(
        catalog.read_text().replace('"repo":', '"engine_args": {"seed": 1}, "repo":')
    )
    for arguments in ((), ("--check",), ("remote",)):
        ran = inhouse("lock", *arguments)
        assert ran.code == 4 and "catalog entry" in ran.out
        assert "error: remote is not what is locked: catalog entry" in ran.err
        assert "hint: inhouse lock --upgrade remote" in ran.err
        assert lock_file(house).read_bytes() == before
    refused = inhouse("pull", "remote", "--locked")
    assert refused.code == 4 and "catalog entry" in refused.err
    assert inhouse("lock", "--upgrade").code == 0 == inhouse("lock", "--check").code


def test_a_revision_that_is_held_instead_is_shown_and_refused(
    inhouse: Inhouse, house: House, hub: FakeHub
) -> None:
    inhouse("lock", "remote")
    before = lock_file(house).read_bytes()
    inhouse("rm", "remote")
    assert inhouse("lock", "--check").code == 0, "what is not here is no difference"
    change(hub, **{"config.json": b'{"a": 1}'})
    inhouse("pull", "remote")
    ran = inhouse("lock")
    assert ran.code == 4 and "revision" in ran.out and "config.json" in ran.out
    assert lock_file(house).read_bytes() == before
    refused = json.loads(inhouse("lock", "--check", "--json").out)["refused"]
    assert refused[0]["files"][0]["path"] == "config.json"
    hub.requests.clear()
    assert inhouse("lock", "--remove", "remote", "remote").code == 0, "accepted as it is here"
    assert hub.requests == [] and locked(house)["remote"]["revision"] == hub.commit(REPO)


def test_models_are_taken_out(inhouse: Inhouse, house: House, hub: FakeHub) -> None:
    inhouse("lock", "remote", "tiny")
    ran = inhouse("lock", "--remove", "far")
    assert ran.code == 0 and "removed" in ran.out and list(locked(house)) == ["tiny"]
    assert inhouse("lock", "--remove", "remote").code == 4
    ran = inhouse("lock", "--remove", "tiny", "remote")
    assert ran.code == 0 and list(locked(house)) == ["remote"]


def test_a_check_writes_and_fetches_nothing(inhouse: Inhouse, house: House, hub: FakeHub) -> None:
    ran = inhouse("lock", "--check")
    assert ran.code == 4 and "error: there is no lock file: " in ran.err
    assert "hint: inhouse lock " in ran.err
    inhouse("lock", "tiny")
    assert inhouse("lock", "--check", "remote").code == 4 and hub.requests == []
    assert inhouse("lock", "--check", "--upgrade").code == 2


def test_a_lock_that_is_none_is_refused(inhouse: Inhouse, house: House) -> None:
    lock_file(house).write_text('{"format": 7}')
    for arguments in (("lock", "tiny"), ("pull", "--locked"), ("serve", "tiny", "--locked")):
        ran = inhouse(*arguments)
        assert ran.code == 4 and "error: cannot use models.lock: is of" in ran.err
        assert "hint: restore it" in ran.err and "inhouse lock makes a new one" in ran.err
    assert lock_file(house).read_text() == '{"format": 7}'


def test_a_locked_pull_brings_the_locked_commit(
    inhouse: Inhouse, house: House, hub: FakeHub
) -> None:
    assert inhouse("pull", "--locked").code == 4
    assert inhouse("pull").code == 2
    inhouse("lock", "remote", "tiny")
    commit = locked(house)["remote"]["revision"]
    inhouse("rm", "remote")
    ran = inhouse("pull", "--locked", "--json")
    assert ran.code == 0, ran.err
    assert [(row["name"], row["revision"]) for row in json.loads(ran.out)][0] == ("remote", commit)
    # The branch has moved on: what is locked is asked for, which this Hub has no more.
    inhouse("rm", "remote")
    change(hub, **{"config.json": b'{"a": 1}'})
    hub.requests.clear()
    gone = inhouse("pull", "--locked")
    assert gone.code == 4 and f"does not have it: {REPO} at revision {commit}" in gone.err
    assert hub.asked_for("GET", commit) and not hub.asked_for("GET", "main")


def test_a_locked_pull_refuses_everything_else(
    inhouse: Inhouse, house: House, hub: FakeHub
) -> None:
    inhouse("lock", "remote")
    ran = inhouse("pull", "tiny", "--locked")
    assert ran.code == 4 and "the lock file does not name the model: tiny" in ran.err
    assert "hint: inhouse lock tiny" in ran.err
    # The Hub gives other bytes for the commit that is locked.
    inhouse("rm", "remote")
    record = json.loads(lock_file(house).read_text())
    hub.requests.clear()
    other = safetensors({"w": b"tampered" * 512})
    hub.repos[REPO]["model.safetensors"] = other
    hub.commit = lambda repo: record["models"]["remote"]["revision"]  # type: ignore[method-assign]
    ran = inhouse("pull", "remote", "--locked")
    assert ran.code == 4 and "model.safetensors" in ran.err
    assert json.loads(inhouse("ls", "--json").out) == []
    assert not hub.asked_for("GET", "/cdn/"), "refused by what the Hub promises, before the bytes"


def test_a_locked_server_serves_what_is_locked_and_refuses_the_rest(
    inhouse: Inhouse, house: House, hub: FakeHub
) -> None:
    inhouse("lock", "remote")
    ran = inhouse("serve", "tiny", "--locked")
    assert ran.code == 4 and "the lock file does not name the model: tiny" in ran.err
    inhouse("rm", "remote")  # it is fetched again, exactly
    with house.serving("remote", "--locked"):
        assert "Paris" in inhouse("chat", "-m", "What is the capital of France?").out
        refused = inhouse("load", "tiny")
        assert refused.code == 4 and "does not name the model: tiny" in refused.err
        assert [m["name"] for m in json.loads(inhouse("ps", "--json").out)["models"]] == ["remote"]


@pytest.mark.parametrize("detached", [(), ("--detach",)])
def test_a_folder_that_has_changed_is_not_served_locked(
    inhouse: Inhouse, house: House, detached: tuple[str, ...]
) -> None:
    inhouse("lock", "tiny")
    (house.folder / "weights" / "config.json").write_text(
        (house.folder / "weights" / "config.json").read_text() + " "
    )
    ran = house.run("serve", "tiny", "--locked", *detached)
    assert ran.code == 4, ran.err
    assert "config.json" in ran.err and "Traceback" not in ran.err
    assert inhouse("ps").code == 7
    # Without the lock a folder of yours is what it is when it is pulled.
    assert inhouse("pull", "tiny").code == 0
    ran = inhouse("lock", "--check")
    assert ran.code == 4 and "config.json" in ran.out


def test_a_detached_server_stays_locked(inhouse: Inhouse, house: House, hub: FakeHub) -> None:
    inhouse("lock", "tiny")
    started = house.run("serve", "tiny", "--locked", "--detach", "--json")
    assert started.code == 0, started.err
    try:
        refused = inhouse("load", "remote")
        assert refused.code == 4 and "does not name the model: remote" in refused.err
    finally:
        assert inhouse("stop").code == 0
