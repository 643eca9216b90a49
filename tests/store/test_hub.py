"""The Hub source, through the real client, against a Hub that misbehaves in every known way."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from serve.errors import (
    AccessDenied,
    HashMismatch,
    InhouseError,
    NotPulled,
    RepoNotFound,
    SourceUnreachable,
    UnsafeWeights,
)
from serve.sources import HubSource
from tests.fakes.contents import git_id, sha256
from tests.fakes.fake_hub import FakeHub
from tests.store.models import (
    FETCHED,
    HUB_SPEC,
    REPO,
    Recorder,
    model_files,
    nothing_is_held,
    safetensors,
    spec,
    store_at,
)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: model_files()}) as running:
        yield running


def test_pull_fetches_the_model_and_nothing_else(tmp_path: Path, hub: FakeHub) -> None:
    recorder = Recorder()
    weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC, recorder)

    assert {path.name for path in weights.path.iterdir()} == FETCHED
    for name in FETCHED:
        assert (weights.path / name).read_bytes() == hub.repos[REPO][name]
    assert weights.revision == hub.commit(REPO)
    assert weights.total_bytes == sum(len(hub.repos[REPO][name]) for name in FETCHED)
    assert recorder.advanced == sum(total or 0 for total in recorder.totals) == weights.total_bytes
    assert recorder.running == 0


def test_sealed_weights_need_no_request(tmp_path: Path, hub: FakeHub) -> None:
    first = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    hub.requests.clear()
    assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC) == first
    pinned = spec(HubSource(REPO, first.revision))
    assert store_at(tmp_path, hub.endpoint).pull(pinned) == first
    assert hub.requests == []


def test_the_cache_is_one_that_the_client_knows(tmp_path: Path, hub: FakeHub) -> None:
    weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    cache = tmp_path / "hf" / "hub"
    found = scan_cache_dir(cache)
    assert not found.warnings and not found.incomplete_files
    [repo] = found.repos
    assert repo.repo_id == REPO and set(repo.refs) == {"main"}
    path = snapshot_download(REPO, cache_dir=cache, local_files_only=True)
    assert Path(path) == weights.path


def test_what_the_client_has_downloaded_is_used_after_a_check(tmp_path: Path, hub: FakeHub) -> None:
    snapshot_download(REPO, cache_dir=tmp_path / "hf" / "hub", endpoint=hub.endpoint, token=False)
    hub.requests.clear()
    weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert hub.asked_for("GET", "/cdn/") == []
    assert weights.total_bytes > 0


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path: Path, hub: FakeHub) -> None:
    weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    file = (weights.path / "model.safetensors").resolve()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(NotPulled):
        store_at(tmp_path).weights(HUB_SPEC)
    hub.requests.clear()
    again = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert again.digest == weights.digest
    assert len(hub.asked_for("GET", "/cdn/")) == 1 and len(hub.asked_for("GET", "/resolve/")) == 0


def test_the_token_goes_to_the_endpoint_only(tmp_path: Path) -> None:
    with FakeHub({REPO: model_files()}, token="hf_secret") as hub:
        store_at(tmp_path, hub.endpoint, "hf_secret").pull(HUB_SPEC)
        sent = {r.path: "hf_secret" in str(r.headers) for r in hub.requests}
    assert len(sent) > 5
    assert all(has_token != path.startswith("/cdn/") for path, has_token in sent.items())


def test_nothing_is_told_about_us(tmp_path: Path, hub: FakeHub) -> None:
    store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    agents = {r.headers.get("user-agent", "") for r in hub.requests}
    assert all(agent.startswith("inhouse/") for agent in agents)
    assert not any(word in agent for agent in agents for word in ("torch/", "agent/"))
    assert "hf_" not in repr(store_at(tmp_path, hub.endpoint, "hf_secret").__dict__)


@pytest.mark.parametrize(
    ("refuse", "expected"),
    [
        ((401, "GatedRepo"), AccessDenied),
        ((403, "GatedRepo"), AccessDenied),
        ((401, ""), AccessDenied),
        ((403, ""), AccessDenied),
        ((401, "RepoNotFound"), RepoNotFound),
        ((404, "RepoNotFound"), RepoNotFound),
        ((404, "RevisionNotFound"), RepoNotFound),
        ((404, "EntryNotFound"), RepoNotFound),
        ((400, ""), SourceUnreachable),
        ((451, ""), SourceUnreachable),
    ],
)
def test_refusals(
    tmp_path: Path, hub: FakeHub, refuse: tuple[int, str], expected: type[InhouseError]
) -> None:
    hub.faults.refuse = refuse
    with pytest.raises(expected):
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert nothing_is_held(tmp_path)


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_a_gated_repository(tmp_path: Path, token: str | None) -> None:
    with (
        FakeHub({REPO: model_files()}, token="hf_right") as hub,
        pytest.raises(AccessDenied) as caught,
    ):
        store_at(tmp_path, hub.endpoint, token).pull(HUB_SPEC)
    assert (caught.value.repo, caught.value.has_token) == (REPO, token is not None)


@pytest.mark.parametrize(
    "source",
    [
        HubSource("org/other"),
        HubSource(REPO, "no-such-branch"),
        HubSource("../../etc/passwd"),
        HubSource("org/model?x=1"),
        HubSource(""),
    ],
)
def test_what_is_not_there(tmp_path: Path, hub: FakeHub, source: HubSource) -> None:
    with pytest.raises(RepoNotFound) as caught:
        store_at(tmp_path, hub.endpoint).pull(spec(source))
    assert (caught.value.repo, caught.value.revision) == (source.repo, source.revision)


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid", "nonsense", "http://[bad"]
)
def test_an_unreachable_hub(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(SourceUnreachable) as caught:
        store_at(tmp_path, endpoint).pull(HUB_SPEC)
    assert caught.value.source == endpoint and caught.value.reason


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>Welcome to the hotel's network</html>",
        b"[]",
        b'{"sha": "../../../x", "siblings": []}',
        b'{"sha": "%s", "siblings": [{"rfilename": "config.json"}]}' % (b"a" * 40),
        b'{"sha": "%s", "siblings": [{"rfilename": "config.json", "size": 1, "blobId": "../x"}]}'
        % (b"a" * 40),
    ],
)
def test_an_answer_that_is_not_a_hubs(tmp_path: Path, hub: FakeHub, answer: bytes) -> None:
    hub.faults.info = answer
    with pytest.raises(SourceUnreachable):
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert nothing_is_held(tmp_path)


def test_a_busy_and_then_broken_hub_is_asked_again(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.busy, hub.faults.broken = 1, 1
    assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).total_bytes > 0


def test_a_hub_that_stays_broken(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.broken = 10**9
    with pytest.raises(SourceUnreachable) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert "503" in caught.value.reason


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("is_shorter", [False, True])
def test_wrong_bytes_never_become_weights(
    tmp_path: Path, hub: FakeHub, file: str, is_shorter: bool
) -> None:
    right = hub.repos[REPO][file]
    if is_shorter:
        hub.faults.short[file] = len(right) - 7
    else:
        hub.faults.lie[file] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(HashMismatch) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert caught.value.file == file
    assert nothing_is_held(tmp_path)
    assert not list(tmp_path.rglob(file))
    # Bytes that are wrong are gone; those that are only too few may be right.
    promised = {git_id(right), sha256(right)}
    left = [p for p in tmp_path.rglob("*.incomplete") if p.name.partition(".")[0] in promised]
    assert bool(left) == is_shorter

    hub.faults.short, hub.faults.lie = {}, {}
    weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert (weights.path / file).read_bytes() == right


def test_an_etag_chooses_no_path(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.lying_etag = "../../../../../escaped"
    with pytest.raises(HashMismatch):
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize(
    ("changes", "file"),
    [
        ({"model.safetensors": None}, "pytorch_model.bin"),
        ({"model.safetensors": None, "pytorch_model.bin": None}, "model.safetensors"),
        ({"config.json": None}, "config.json"),
        ({"config.json": b"{"}, "config.json"),
        ({"config.json": b"[]"}, "config.json"),
        (
            {"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["x.Y", null]}}'},
            "tokenizer_config.json",
        ),
        ({"model.safetensors": b"\xff" * 2000}, "model.safetensors"),
        ({"model.safetensors": safetensors({"w": b"x" * 2000})[:-1]}, "model.safetensors"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"w": "../../x.safetensors"}}'},
            "model.safetensors.index.json",
        ),
        ({"model.safetensors.index.json": b"{}"}, "model.safetensors.index.json"),
    ],
)
def test_what_we_do_not_load(
    tmp_path: Path, hub: FakeHub, changes: dict[str, bytes | None], file: str
) -> None:
    for name, data in changes.items():
        hub.repos[REPO].pop(name, None)
        if data is not None:
            hub.repos[REPO][name] = data
    with pytest.raises(UnsafeWeights) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert caught.value.file == file and caught.value.reason
    assert nothing_is_held(tmp_path)


def test_auto_map_that_is_not_needed_is_fine(tmp_path: Path, hub: FakeHub) -> None:
    config = {"architectures": ["DeepseekV3ForCausalLM"], "auto_map": {"AutoConfig": "a.B"}}
    hub.repos[REPO]["config.json"] = json.dumps(config).encode()
    store = store_at(tmp_path, hub.endpoint)
    weights = store.pull(replace(HUB_SPEC, remote_code="unneeded"))
    assert not list(weights.path.rglob("*.py"))
    with pytest.raises(UnsafeWeights):
        store.pull(replace(HUB_SPEC, name="other"))


def test_approved_python_is_fetched_with_that_commit_only(tmp_path: Path, hub: FakeHub) -> None:
    config = {"architectures": ["Tiny"], "auto_map": {"AutoConfig": "modeling_tiny.Config"}}
    hub.repos[REPO]["config.json"] = json.dumps(config).encode()
    approved = replace(HUB_SPEC, remote_code=hub.commit(REPO))
    weights = store_at(tmp_path, hub.endpoint).pull(approved)
    assert (weights.path / "modeling_tiny.py").is_file()
    hub.repos[REPO]["README.md"] = b"# Tiny 2"
    with pytest.raises(UnsafeWeights):
        store_at(tmp_path / "another", hub.endpoint).pull(approved)


def test_shards_are_those_of_the_index(tmp_path: Path, hub: FakeHub) -> None:
    files = hub.repos[REPO]
    shard = files.pop("model.safetensors")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    files |= dict.fromkeys(names, shard)
    files["consolidated.safetensors"] = files["adapter.safetensors"] = shard
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert sorted(path.name for path in weights.path.glob("*.safetensors")) == names


def test_remove_keeps_what_other_revisions_and_copies_need(tmp_path: Path) -> None:
    files = model_files()
    with FakeHub({REPO: files, "org/copy": files}) as hub:
        store = store_at(tmp_path, hub.endpoint)
        old = store.pull(HUB_SPEC)
        hub.repos[REPO]["config.json"] = b'{"architectures": ["Other"]}'
        new = store.pull(replace(HUB_SPEC, name="newer", source=HubSource(REPO, hub.commit(REPO))))
        copy = store.pull(spec(HubSource("org/copy"), "copy"))
    assert old.path != new.path
    freed = store.remove("tiny")
    assert 0 < freed < 100  # config.json alone
    assert not old.path.exists()
    assert [held.name for held in store.list() if held.is_complete] == ["copy", "newer"]
    assert store.remove("newer") > 4096
    assert store.remove("copy") == copy.total_bytes
    assert store.list() == ()
    with pytest.raises(NotPulled):
        store.remove("copy")
