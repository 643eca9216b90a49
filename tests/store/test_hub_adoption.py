"""What other programs have put into the Hugging Face cache is ours too, after verification."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download, snapshot_download

from serve.errors import HashMismatch, SourceUnreachable
from serve.sources import HubSource
from serve.store import hub as hub_room
from serve.store.manifest import Fetched
from serve.store.progress import Silent
from tests.fakes.contents import git_id, sha256
from tests.fakes.fake_hub import FakeHub
from tests.store.models import FETCHED, REPO, Recorder, access_at, model_files, sharded_files

MIB = 2**20
SHARD = "model.safetensors"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: model_files(2 * MIB)}) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub"


def download(hub: FakeHub, cache: Path) -> Path:
    """The whole repository, by the real client."""
    return Path(snapshot_download(REPO, cache_dir=cache, endpoint=hub.endpoint, token=False))


def fetch(
    tmp_path: Path, endpoint: str, recorder: Recorder | None = None, revision: str = "main"
) -> Fetched:
    source = HubSource(REPO, revision)
    return hub_room.fetch(source, access_at(tmp_path, endpoint), recorder or Silent())


def blobs(cache: Path) -> dict[str, tuple[int, int]]:
    """The names of all blobs, with inode and time."""
    found = (path.stat() for path in sorted(cache.glob("*/blobs/*")))
    names = (path.name for path in sorted(cache.glob("*/blobs/*")))
    return {name: (one.st_ino, one.st_mtime_ns) for name, one in zip(names, found, strict=True)}


def test_what_the_client_has_downloaded_is_adopted_without_a_copy(
    tmp_path: Path, hub: FakeHub, cache: Path
) -> None:
    snapshot = download(hub, cache)
    before = blobs(cache)
    hub.requests.clear()
    recorder = Recorder()
    found = fetch(tmp_path, hub.endpoint, recorder)
    assert [one.method for one in hub.requests] == ["GET"]  # the listing
    assert found.path == snapshot and blobs(cache) == before
    assert {record.path for record in found.files} == FETCHED
    assert recorder.notes == [f"here already, to be verified: {n} of {n} files" for n in (4, 1)]
    assert recorder.advanced == recorder.totals[0]


def test_single_files_of_other_tools_are_adopted(tmp_path: Path, hub: FakeHub, cache: Path) -> None:
    hf_hub_download(REPO, SHARD, cache_dir=cache, endpoint=hub.endpoint, token=False)
    hub.requests.clear()
    fetch(tmp_path, hub.endpoint)
    assert hub.asked_for("GET", "/cdn/") == []
    assert len(hub.asked_for("GET", "/resolve/")) == 4


@pytest.mark.parametrize("file", [SHARD, "tokenizer.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "extended", "gone"])
def test_a_damaged_one_is_fetched_anew(
    tmp_path: Path, hub: FakeHub, cache: Path, file: str, damage: str
) -> None:
    blob = (download(hub, cache) / file).resolve()
    content = blob.read_bytes()
    changed = {
        "flipped": content[:-1] + bytes([content[-1] ^ 1]),
        "truncated": content[:-1],
        "extended": content + b"x",
        "gone": b"",
    }[damage]
    blob.write_bytes(changed)
    if damage == "gone":
        blob.unlink()
    hub.requests.clear()
    recorder = Recorder()
    found = fetch(tmp_path, hub.endpoint, recorder)
    assert (found.path / file).read_bytes() == content
    assert len(hub.asked_for("GET", "/cdn/")) + len(hub.asked_for("GET", "/resolve/")) == 1
    assert recorder.advanced == recorder.totals[0]


def test_a_file_in_place_of_a_link_is_adopted_where_it_lies(
    tmp_path: Path, hub: FakeHub, cache: Path
) -> None:
    """As on file systems without symlinks, and after `cp -L`."""
    pointer = download(hub, cache) / SHARD
    blob = pointer.resolve()
    pointer.unlink()
    blob.rename(pointer)
    hub.requests.clear()
    found = fetch(tmp_path, hub.endpoint)
    assert hub.asked_for("GET", "/cdn/") == []
    assert not (found.path / SHARD).is_symlink()


@pytest.mark.parametrize("name", ["{}.incomplete", "{}.0123abcd.incomplete"])
def test_their_half_downloaded_file_is_continued(
    tmp_path: Path, hub: FakeHub, cache: Path, name: str
) -> None:
    content = hub.repos[REPO][SHARD]
    assert isinstance(content, bytes)
    left = leave(cache, name.format(sha256(content)), content[:MIB])
    fetch(tmp_path, hub.endpoint)
    [get] = hub.asked_for("GET", "/cdn/")
    assert get.headers["Range"] == f"bytes={MIB}-"
    assert not left.exists()


def test_their_damaged_half_is_noticed(tmp_path: Path, hub: FakeHub, cache: Path) -> None:
    leave(cache, f"{sha256(hub.repos[REPO][SHARD])}.incomplete", b"x" * MIB)
    recorder = Recorder()
    fetch(tmp_path, hub.endpoint, recorder)
    assert recorder.notes == [f"the first part of {SHARD} was damaged: beginning again"]


def test_a_half_with_holes_is_left_alone(tmp_path: Path, hub: FakeHub, cache: Path) -> None:
    left = leave(cache, f"{sha256(hub.repos[REPO][SHARD])}.incomplete", b"")
    os.truncate(left, MIB)
    fetch(tmp_path, hub.endpoint)
    [get] = hub.asked_for("GET", "/cdn/")
    assert "Range" not in get.headers and left.exists()


def test_what_they_are_downloading_now_is_left_to_them(
    tmp_path: Path, hub: FakeHub, cache: Path
) -> None:
    content = hub.repos[REPO][SHARD]
    assert isinstance(content, bytes)
    left = leave(cache, f"{sha256(content)}.incomplete", content[:MIB])
    lock = cache / ".locks" / left.parents[1].name / f"{sha256(content)}.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        fetch(tmp_path, hub.endpoint)
    assert left.read_bytes() == content[:MIB]


def leave(cache: Path, name: str, content: bytes) -> Path:
    """A file among the blobs, as a client that ended early leaves it."""
    path = cache / "models--org--tiny" / "blobs" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def offline() -> Iterator[None]:
    """As with HF_HUB_OFFLINE=1, which the client reads once, when it is imported."""
    constants.HF_HUB_OFFLINE = True
    yield
    constants.HF_HUB_OFFLINE = False


def test_without_the_hub_a_whole_snapshot_is_adopted(
    tmp_path: Path, hub: FakeHub, cache: Path
) -> None:
    snapshot = download(hub, cache)
    recorder = Recorder()
    found = fetch(tmp_path, NOWHERE, recorder)
    assert (found.path, found.revision) == (snapshot, hub.commit(REPO))
    assert {record.path: record.sha256 for record in found.files} == {
        name: sha256(hub.repos[REPO][name]) for name in FETCHED
    }
    assert {record.path: record.oid for record in found.files}["config.json"] == git_id(
        hub.repos[REPO]["config.json"]
    )
    assert NOWHERE in recorder.notes[0] and hub.commit(REPO)[:12] in recorder.notes[0]
    assert recorder.advanced == recorder.totals[0]
    pinned = fetch(tmp_path, NOWHERE, revision=found.revision)
    assert pinned == found


def test_hf_hub_offline_is_obeyed(tmp_path: Path, hub: FakeHub, cache: Path, offline: None) -> None:
    with pytest.raises(SourceUnreachable) as caught:
        fetch(tmp_path, hub.endpoint)
    assert "HF_HUB_OFFLINE" in caught.value.reason
    constants.HF_HUB_OFFLINE = False
    download(hub, cache)
    constants.HF_HUB_OFFLINE = True
    hub.requests.clear()
    assert fetch(tmp_path, hub.endpoint).revision == hub.commit(REPO)
    assert hub.requests == []


@pytest.mark.parametrize("gone", [SHARD, "config.json", "tokenizer.json"])
def test_without_the_hub_a_part_is_not_enough(
    tmp_path: Path, hub: FakeHub, cache: Path, gone: str
) -> None:
    (download(hub, cache) / gone).unlink()
    with pytest.raises(SourceUnreachable) as caught:
        fetch(tmp_path, NOWHERE)
    assert caught.value.source == NOWHERE


@pytest.mark.parametrize(
    "gone", ["model-00002-of-00003.safetensors", "model.safetensors.index.json"]
)
def test_without_the_hub_every_shard_must_be_there(tmp_path: Path, cache: Path, gone: str) -> None:
    with FakeHub({REPO: sharded_files(3, MIB)}) as hub:
        snapshot = download(hub, cache)
    assert len(fetch(tmp_path, NOWHERE).files) == 8
    (snapshot / gone).unlink()
    if gone.endswith(".json"):
        (snapshot / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(SourceUnreachable):
        fetch(tmp_path, NOWHERE)


@pytest.mark.parametrize("file", [SHARD, "tokenizer.json"])
def test_without_the_hub_damage_is_not_adopted(
    tmp_path: Path, hub: FakeHub, cache: Path, file: str
) -> None:
    blob = (download(hub, cache) / file).resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises((SourceUnreachable, HashMismatch)):
        fetch(tmp_path, NOWHERE)


def test_a_ref_leads_nowhere_else(tmp_path: Path, hub: FakeHub, cache: Path) -> None:
    download(hub, cache)
    ref = cache / "models--org--tiny" / "refs" / "main"
    for content in ("../../..", "", "main"):
        ref.write_text(content)
        with pytest.raises(SourceUnreachable):
            fetch(tmp_path, NOWHERE)
    for revision in ("../refs/main", "..", "/etc/passwd"):
        with pytest.raises(SourceUnreachable):
            fetch(tmp_path, NOWHERE, revision=revision)
