"""Seals, several pulls at once, and disks that are full or closed."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serve.errors import DiskFull, NotPulled, NotWritable
from serve.store import Access, Store
from tests.fakes.fake_hub import FakeHub
from tests.store.models import (
    HUB_SPEC,
    REPO,
    Recorder,
    model_files,
    no_convert,
    no_wheel,
    spec,
    store_at,
)

MIB = 2**20


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: model_files(300_000)}) as running:
        yield running


def manifest_file(tmp_path: Path) -> Path:
    [file] = (tmp_path / "home" / "manifests").glob("*.json")
    return file


def test_nothing_is_held_at_first(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    assert store.list() == ()
    with pytest.raises(NotPulled):
        store.weights(HUB_SPEC)
    with pytest.raises(NotPulled):
        store.remove("tiny")


def test_list_tells_what_is_held(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    weights = store.pull(HUB_SPEC)
    [held] = store.list()
    assert (held.name, held.source, held.revision, held.path, held.total_bytes, held.sealed_at) == (
        "tiny", REPO, weights.revision, weights.path, weights.total_bytes, weights.sealed_at,
    )  # fmt: skip
    assert held.is_complete
    (weights.path / "config.json").unlink()
    assert not store.list()[0].is_complete
    with pytest.raises(NotPulled):
        store.weights(HUB_SPEC)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3},
        {"surprise": 1},
        {"digest": "0" * 64},
        {"revision": "main"},
        {"files": [{"path": "../../x", "size": 1, "sha256": "0" * 64, "mtime_ns": 1}]},
        {"name": None},
    ],
)
def test_a_manifest_that_is_none_seals_nothing(
    tmp_path: Path, hub: FakeHub, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    store = store_at(tmp_path, hub.endpoint)
    weights = store.pull(HUB_SPEC)
    file = manifest_file(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert store.list() == ()
    assert str(file) in caplog.text
    assert store.pull(HUB_SPEC).digest == weights.digest


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_torn_manifest_seals_nothing(tmp_path: Path, hub: FakeHub, length: int) -> None:
    store = store_at(tmp_path, hub.endpoint)
    store.pull(HUB_SPEC)
    file = manifest_file(tmp_path)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(NotPulled):
        store.weights(HUB_SPEC)


def test_other_times_and_same_content_are_sealed_anew_without_the_hub(
    tmp_path: Path, hub: FakeHub
) -> None:
    store = store_at(tmp_path, hub.endpoint)
    weights = store.pull(HUB_SPEC)
    for path in weights.path.iterdir():
        os.utime(path, (1, 1))
    with pytest.raises(NotPulled):
        store.weights(HUB_SPEC)
    hub.requests.clear()
    assert store.pull(HUB_SPEC) == weights == store.weights(HUB_SPEC)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["tiny", "other"])
def test_pulls_at_once_do_the_work_once(tmp_path: Path, hub: FakeHub, name: str) -> None:
    """`other` has the same repository: not the same model's lock, but the same files."""
    hub.faults.stall_at = 65536
    second = Recorder()
    with ThreadPoolExecutor(2) as pool:
        first_pull = pool.submit(store_at(tmp_path, hub.endpoint).pull, HUB_SPEC)
        assert hub.faults.stalled.wait(60)
        other = spec(HUB_SPEC.source, name)
        second_pull = pool.submit(store_at(tmp_path, hub.endpoint).pull, other, second)
        assert second.noted.wait(60)
        assert store_at(tmp_path).list() == ()
        hub.faults.resume.set()
        assert first_pull.result().digest == second_pull.result().digest
    assert len(hub.asked_for("GET", "/cdn/")) == 1


def test_a_pull_and_a_removal_take_turns(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.stall_at = 65536
    store = store_at(tmp_path, hub.endpoint)
    removed: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        pull = pool.submit(store.pull, HUB_SPEC)
        assert hub.faults.stalled.wait(60)
        remover = threading.Thread(target=lambda: removed.append(store.remove("tiny")))
        remover.start()
        hub.faults.resume.set()
        assert pull.result().total_bytes > 0
        remover.join()
    assert removed[0] > 300_000 and store.list() == ()


def test_a_disk_that_is_too_small_is_noticed_before(small_disk: Path) -> None:
    with FakeHub({REPO: model_files(24 * MIB)}) as hub:
        with pytest.raises(DiskFull) as caught:
            store_at(small_disk, hub.endpoint).pull(HUB_SPEC)
        assert hub.asked_for("GET", "/cdn/") == []
    assert caught.value.needed_bytes is not None and caught.value.needed_bytes > 24 * MIB
    assert 0 < caught.value.free_bytes <= 16 * MIB


def test_a_disk_that_fills_up_meanwhile(small_disk: Path) -> None:
    ballast = small_disk / "ballast"

    def fill_up(n_bytes: int) -> None:
        if n_bytes > MIB:
            with ballast.open("wb", buffering=0) as file:
                while file.write(b"x" * MIB) == MIB:
                    pass

    def fill(n_bytes: int) -> None:
        try:
            fill_up(n_bytes)
        except OSError:
            assert ballast.stat().st_size > 0

    with FakeHub({REPO: model_files(12 * MIB)}) as hub:
        store = store_at(small_disk, hub.endpoint)
        with pytest.raises(DiskFull):
            store.pull(HUB_SPEC, Recorder(on_advance=fill))
        assert store.list() == () and not list(small_disk.rglob("*.incomplete"))
        ballast.unlink()
        assert store.pull(HUB_SPEC).total_bytes > 12 * MIB


def test_a_read_only_home_serves_what_it_has(small_disk: Path, hub: FakeHub) -> None:
    store = store_at(small_disk, hub.endpoint)
    weights = store.pull(HUB_SPEC)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert store.pull(HUB_SPEC) == weights
    with pytest.raises(NotWritable) as caught:
        store.pull(spec(HUB_SPEC.source, "other"))
    assert caught.value.path.startswith(str(small_disk)) and "Read-only" in caught.value.reason
    with pytest.raises(NotWritable):
        store.remove("tiny")


@pytest.mark.parametrize("closed", ["own", "hf"])
def test_a_home_that_is_no_folder(tmp_path: Path, hub: FakeHub, closed: str) -> None:
    (tmp_path / closed).write_text("a file")
    access = Access(hub.endpoint, None, tmp_path / "hf", no_convert, no_wheel)
    with pytest.raises(NotWritable) as caught:
        Store(tmp_path / "own", access).pull(HUB_SPEC)
    assert caught.value.path.startswith(str(tmp_path / closed))
