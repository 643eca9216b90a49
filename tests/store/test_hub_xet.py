"""Xet, through the real hf_xet, from a storage service that gives chunks and takes its time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from serve.errors import HashMismatch, SourceUnreachable
from tests.fakes.contents import sha256
from tests.fakes.fake_hub import FakeHub
from tests.store.models import (
    HUB_SPEC,
    REPO,
    Recorder,
    model_files,
    nothing_is_held,
    sharded_files,
    store_at,
)

MIB = 2**20
SHARD = "model.safetensors"


@pytest.fixture
def hub(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("HF_HOME", str(own_home / "hf"))  # where hf_xet keeps what it knows
    with FakeHub({REPO: model_files(3 * MIB + 777)}, token="hf_secret") as running:
        running.faults.xet = True
        yield running


def test_files_come_from_the_storage(tmp_path: Path, hub: FakeHub) -> None:
    recorder = Recorder()
    weights = store_at(tmp_path, hub.endpoint, "hf_secret").pull(HUB_SPEC, recorder)
    assert (weights.path / SHARD).read_bytes() == hub.repos[REPO][SHARD]
    assert hub.asked_for("GET", "/cdn/") == [] and hub.asked_for("GET", "/xorb/")
    assert recorder.advanced == weights.total_bytes


def test_several_come_at_once(tmp_path: Path) -> None:
    files = sharded_files(3, 2 * MIB)
    with FakeHub({REPO: files}) as hub:
        hub.faults.xet = True
        weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
        assert len(hub.asked_for("GET", "/xorb/")) >= 3
    for name, content in files.items():
        if name.startswith("model-"):
            assert (weights.path / name).read_bytes() == content


def test_the_storage_gets_no_token_and_is_told_nothing(tmp_path: Path, hub: FakeHub) -> None:
    store_at(tmp_path, hub.endpoint, "hf_secret").pull(HUB_SPEC)
    asked = hub.asked_for("GET", "/reconstructions/") + hub.asked_for("GET", "/xorb/")
    assert asked and not any("hf_secret" in str(one.headers) for one in asked)
    assert [one for one in hub.requests if one.method == "POST"] == []


def test_what_is_there_is_not_fetched_again(tmp_path: Path, hub: FakeHub) -> None:
    content = hub.repos[REPO][SHARD]
    assert isinstance(content, bytes)
    blobs = tmp_path / "hf" / "hub" / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(content)}.inhouse.incomplete").write_bytes(content[: 2 * MIB + 5])
    weights = store_at(tmp_path, hub.endpoint, "hf_secret").pull(HUB_SPEC)
    assert (weights.path / SHARD).read_bytes() == content
    asked = [one.headers["range"] for one in hub.asked_for("GET", "/v1/reconstructions/")]
    assert asked == [f"bytes={2 * MIB + 5}-{len(content) - 1}"]


def test_wrong_chunks_never_become_weights(tmp_path: Path, hub: FakeHub) -> None:
    right = hub.repos[REPO][SHARD]
    assert isinstance(right, bytes)
    hub.faults.lie[SHARD] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(HashMismatch) as caught:
        store_at(tmp_path, hub.endpoint, "hf_secret").pull(HUB_SPEC)
    assert caught.value.file == SHARD
    assert nothing_is_held(tmp_path)


def test_a_storage_without_the_file(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.xet_broken = True
    with pytest.raises(SourceUnreachable) as caught:
        store_at(tmp_path, hub.endpoint, "hf_secret").pull(HUB_SPEC)
    assert caught.value.source == "Xet"
    assert nothing_is_held(tmp_path)


def test_it_can_be_switched_off(tmp_path: Path, hub: FakeHub) -> None:
    """As with HF_HUB_DISABLE_XET=1, which the client reads once, when it is imported."""
    constants.HF_HUB_DISABLE_XET = True
    try:
        store_at(tmp_path, hub.endpoint, "hf_secret").pull(HUB_SPEC)
    finally:
        constants.HF_HUB_DISABLE_XET = False
    assert hub.asked_for("GET", "/cdn/") and not hub.asked_for("GET", "/reconstructions/")
