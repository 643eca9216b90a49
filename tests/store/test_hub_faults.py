"""What goes wrong while files are moved: each ends well, or in the right error."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.errors import HashMismatch, LockMismatch, RepoNotFound, SourceUnreachable
from serve.sources import HubSource
from serve.store import hub as hub_room
from serve.store.progress import Silent
from tests.fakes.contents import sha256
from tests.fakes.fake_hub import FakeHub
from tests.store.models import (
    FETCHED,
    HUB_SPEC,
    REPO,
    Recorder,
    access_at,
    model_files,
    nothing_is_held,
    sharded_files,
    store_at,
)

MIB = 2**20
SHARD = "model.safetensors"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: model_files(3 * MIB)}) as running:
        yield running


def test_a_hub_that_is_busy_says_when_to_come_back(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.busy, hub.faults.retry_after_s, hub.faults.only = 1, 2, "/cdn/"
    began = time.monotonic()
    assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).total_bytes > 3 * MIB
    assert time.monotonic() - began > 2
    assert len(hub.asked_for("GET", "/cdn/")) == 2


@pytest.mark.parametrize("only", ["/cdn/", "/resolve/"])
def test_a_storage_that_is_broken_for_a_moment(tmp_path: Path, hub: FakeHub, only: str) -> None:
    hub.faults.broken, hub.faults.only = 2, only
    assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).total_bytes > 3 * MIB


@pytest.mark.parametrize("only", ["/cdn/", f"/{SHARD}"])
def test_a_storage_that_stays_broken(tmp_path: Path, hub: FakeHub, only: str) -> None:
    hub.faults.broken, hub.faults.only = 10**9, only
    with pytest.raises(SourceUnreachable) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert "503" in caught.value.reason
    assert nothing_is_held(tmp_path)


def test_a_slow_hub(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.seconds_per_piece = 0.02  # 3 MiB in a second
    recorder = Recorder()
    weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC, recorder)
    assert recorder.advanced == weights.total_bytes


def test_a_silent_hub_is_asked_again(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.stall_at = 2 * MIB
    recorder = Recorder(on_advance=lambda n: _speak_again(hub))
    assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC, recorder).total_bytes > 3 * MIB


def _speak_again(hub: FakeHub) -> None:
    if hub.faults.stalled.is_set():
        hub.faults.stall_at = None  # for the next connection; this one stays silent


@pytest.mark.parametrize("file", [SHARD, "tokenizer.json"])
def test_a_content_length_that_promises_more(tmp_path: Path, hub: FakeHub, file: str) -> None:
    hub.faults.claims[file] = len(hub.repos[REPO][file]) + 100
    # All that was promised by hash is there when the connection ends too early.
    assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).total_bytes > 3 * MIB


def test_a_content_length_that_promises_less(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.claims[SHARD] = 1000
    with pytest.raises(HashMismatch) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert caught.value.file == SHARD and caught.value.actual == "3000 bytes"
    assert len(hub.asked_for("GET", "/cdn/")) == 3
    hub.faults.claims = {}
    assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).total_bytes > 3 * MIB


@pytest.mark.parametrize("file", [SHARD, "tokenizer.json"])
def test_a_file_that_is_longer_than_promised(tmp_path: Path, hub: FakeHub, file: str) -> None:
    right = hub.repos[REPO][file]
    assert isinstance(right, bytes)
    hub.faults.lie[file] = right + b"more"
    with pytest.raises(HashMismatch) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert caught.value.file == file
    assert nothing_is_held(tmp_path)


def test_a_hub_without_ranges_begins_again(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.ranges = False
    hub.faults.reset_at, hub.faults.resets = 2 * MIB, 1
    recorder = Recorder()
    weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC, recorder)
    assert recorder.advanced == weights.total_bytes


def test_a_hub_with_wrong_ranges(tmp_path: Path) -> None:
    with FakeHub({REPO: model_files(24 * MIB)}) as hub:
        hub.faults.range_shift = 7
        hub.faults.reset_at, hub.faults.resets = 23 * MIB, 1
        recorder = Recorder()
        weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC, recorder)
        _, wrong, whole = hub.asked_for("GET", "/cdn/")
    assert "Range" in wrong.headers and "Range" not in whole.headers
    assert recorder.advanced == weights.total_bytes


def test_a_stale_etag_is_no_promise(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.lying_etag = "0" * 64
    with pytest.raises(HashMismatch) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert caught.value.actual == "0" * 64
    assert hub.asked_for("GET", "/cdn/") == []


@pytest.mark.parametrize("file", [SHARD, "tokenizer.json"])
def test_a_file_that_changes_after_it_was_listed(tmp_path: Path, hub: FakeHub, file: str) -> None:
    hub.faults.changed[file] = b"{}" if file.endswith(".json") else b"new" * MIB
    with pytest.raises(HashMismatch) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert caught.value.file == file
    assert nothing_is_held(tmp_path)


def test_a_branch_that_moves_between_two_pulls(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    old = store.pull(HUB_SPEC)
    hub.repos[REPO]["tokenizer.json"] = b'{"version": "2.0"}'
    assert store.pull(HUB_SPEC) == old  # what is sealed stays what it is
    sent = hub.sent_bytes
    new = hub_room.fetch(HubSource(REPO), access_at(tmp_path, hub.endpoint), Silent())
    assert new.revision == hub.commit(REPO) != old.revision
    assert (new.path / "tokenizer.json").read_bytes() == b'{"version": "2.0"}'
    assert (old.path / "tokenizer.json").read_bytes() == b'{"version": "1.0"}'
    assert hub.sent_bytes - sent < 1024  # the shard is the same, and here


def test_a_redirect_to_another_host_gets_no_token(tmp_path: Path) -> None:
    with FakeHub({REPO: model_files()}) as hub:
        hub.faults.elsewhere = True
        store_at(tmp_path, hub.endpoint, "hf_secret").pull(HUB_SPEC)
        hosts = {(r.headers["Host"], "hf_secret" in str(r.headers)) for r in hub.requests}
    there, here = hub.cdn.removeprefix("http://"), hub.endpoint.removeprefix("http://")
    assert hosts == {(here, True), (there, False)}


def test_a_listing_that_lies(tmp_path: Path, hub: FakeHub) -> None:
    """The Hub lists the hash of other bytes than it has, and its ETag says so too."""
    right = hub.repos[REPO][SHARD]
    assert isinstance(right, bytes)
    hub.repos[REPO][SHARD] = b"promised" * MIB
    hub.faults.lie[SHARD] = right
    with pytest.raises(HashMismatch) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert caught.value.file == SHARD


def test_files_that_are_gone_from_a_commit(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.refuse = (404, "EntryNotFound")
    with pytest.raises(RepoNotFound):
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)


def locked(hub: FakeHub) -> dict[str, str]:
    """What a lock file says of the model as it is now."""
    return {name: sha256(hub.repos[REPO][name]) for name in FETCHED}


def test_files_are_what_is_locked(tmp_path: Path, hub: FakeHub) -> None:
    access = access_at(tmp_path, hub.endpoint)
    found = hub_room.fetch(HubSource(REPO), access, Silent(), expected=locked(hub))
    assert {record.path: record.sha256 for record in found.files} == locked(hub)


@pytest.mark.parametrize("file", [SHARD, "tokenizer.json"])
def test_a_file_that_is_not_what_is_locked(tmp_path: Path, hub: FakeHub, file: str) -> None:
    expected = locked(hub) | {file: "0" * 64}
    with pytest.raises(LockMismatch) as caught:
        hub_room.fetch(HubSource(REPO), access_at(tmp_path, hub.endpoint), Silent(), expected)
    assert (caught.value.what, caught.value.expected) == (file, "0" * 64)
    assert caught.value.actual == locked(hub)[file]
    assert not list(tmp_path.rglob(file))
    assert hub.asked_for("GET", "/cdn/") == []


@pytest.mark.parametrize("file", [SHARD, "tokenizer.json"])
def test_a_file_that_is_not_locked(tmp_path: Path, hub: FakeHub, file: str) -> None:
    expected = locked(hub)
    del expected[file]
    with pytest.raises(LockMismatch) as caught:
        hub_room.fetch(HubSource(REPO), access_at(tmp_path, hub.endpoint), Silent(), expected)
    assert (caught.value.what, caught.value.expected) == (file, "")


def test_a_locked_file_that_is_gone(tmp_path: Path, hub: FakeHub) -> None:
    expected = locked(hub) | {"vocab.json": "0" * 64}
    with pytest.raises(LockMismatch) as caught:
        hub_room.fetch(HubSource(REPO), access_at(tmp_path, hub.endpoint), Silent(), expected)
    assert caught.value.what == "vocab.json"
    assert nothing_is_held(tmp_path)


def test_files_are_fetched_at_once_and_counted(tmp_path: Path) -> None:
    files = sharded_files(3, MIB)
    files["model-00003-of-00003.safetensors"] = files["model-00002-of-00003.safetensors"]
    with FakeHub({REPO: files}) as hub:
        recorder = Recorder()
        weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC, recorder)
        gets = hub.asked_for("GET", "/cdn/")
    assert len(gets) == 2  # what is the same content is fetched once
    assert recorder.files == len(list(weights.path.iterdir())) == 8
    assert recorder.labels == [REPO]
    assert recorder.advanced == recorder.totals[0] == weights.total_bytes
