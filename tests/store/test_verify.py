"""Every byte read again: what is found, what follows, and how it is told."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serve.errors import NotPulled, WeightsDamaged
from serve.sources import DirSource
from serve.store import Store, Weights
from serve.store import manifest as seals
from serve.store.checking import checked
from serve.store.manifest import FileRecord, Manifest, digest_of, record_of
from tests.fakes.contents import sha256
from tests.fakes.fake_hub import FakeHub
from tests.store.damage import DAMAGES, flip_bit
from tests.store.models import (
    HUB_SPEC,
    REPO,
    Recorder,
    model_files,
    safetensors,
    sharded_files,
    spec,
    store_at,
)

SHARD = "model-00003-of-00003.safetensors"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: sharded_files(3, 40_000)}) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path, hub: FakeHub) -> Store:
    return store_at(tmp_path, hub.endpoint)


def behind_the_back(store: Store, weights: Weights, name: str, tmp_path: Path) -> None:
    """A disk that forgets: other bytes, and nothing that the cheap check looks at is other."""
    flip_bit((weights.path / name).resolve())
    [found] = store.manifests()
    files = tuple(
        record_of(found.path, one.path, one.sha256, one.oid) if one.path == name else one
        for one in found.files
    )
    seals.seal(tmp_path / "home", replace(found, files=files))


def test_good_weights_are_read_whole(store: Store, hub: FakeHub) -> None:
    weights = store.pull(HUB_SPEC)
    hub.requests.clear()
    recorder = Recorder()
    again = store.verify("tiny", recorder)
    assert recorder.advanced == recorder.totals[0] == weights.total_bytes
    assert recorder.files == len(store.manifest(HUB_SPEC).files) and recorder.running == 0
    assert again.verified_at > weights.verified_at and again.sealed_at == weights.sealed_at
    assert store.weights(HUB_SPEC).verified_at == again.verified_at
    assert hub.requests == [], "nobody is asked"


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named_and_quarantined(
    store: Store, hub: FakeHub, damage: Callable[[Path], None]
) -> None:
    weights = store.pull(HUB_SPEC)
    damage((weights.path / SHARD).resolve())
    with pytest.raises(WeightsDamaged) as caught:
        store.verify(weights)
    assert caught.value.file == SHARD
    assert caught.value.expected == sha256(hub.repos[REPO][SHARD])
    with pytest.raises(WeightsDamaged):
        store.ready(HUB_SPEC)
    assert store.pull(HUB_SPEC).digest == weights.digest == store.verify("tiny").digest


def test_what_the_cheap_check_cannot_see(store: Store, tmp_path: Path) -> None:
    weights = store.pull(HUB_SPEC)
    behind_the_back(store, weights, SHARD, tmp_path)
    store.ready(HUB_SPEC)  # the price of not reading 140 GB at each load
    with pytest.raises(WeightsDamaged) as caught:
        store.verify("tiny")
    assert caught.value.file == SHARD
    with pytest.raises(WeightsDamaged):
        store.ready(HUB_SPEC)
    assert store.pull(HUB_SPEC).digest == weights.digest


def test_a_folder_of_yours_that_forgets_is_sealed_anew_by_a_pull(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    for name, data in model_files().items():
        if "/" not in name:
            (root / name).write_bytes(data)
    store, model = store_at(tmp_path), spec(DirSource(root))
    old = store.pull(model)
    behind_the_back(store, old, "model.safetensors", tmp_path)
    with pytest.raises(WeightsDamaged):
        store.verify("tiny")
    new = store.pull(model)
    assert new.digest != old.digest, "it is what it is now, and was hashed to know that"
    assert store.verify("tiny").digest == new.digest


def test_weights_that_are_good_again_leave_the_quarantine(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    for name, data in model_files().items():
        if "/" not in name:
            (root / name).write_bytes(data)
    store, model = store_at(tmp_path), spec(DirSource(root))
    store.pull(model)
    good = (root / "config.json").read_bytes()
    (root / "config.json").write_bytes(b'{"architectures": []}')
    with pytest.raises(WeightsDamaged):
        store.ready(model)
    (root / "config.json").write_bytes(good)
    with pytest.raises(WeightsDamaged):
        store.ready(model)
    assert store.verify("tiny").damage is None
    store.ready(model)


def test_a_file_that_is_missing_or_cannot_be_read(store: Store) -> None:
    weights = store.pull(HUB_SPEC)
    pointer = weights.path / SHARD
    pointer.unlink()
    pointer.mkdir()
    with pytest.raises(WeightsDamaged) as caught:
        store.verify("tiny")
    assert (caught.value.file, caught.value.actual) == (SHARD, "no such file")


def test_nothing_to_verify(store: Store) -> None:
    with pytest.raises(NotPulled):
        store.verify("tiny")
    weights = store.pull(HUB_SPEC)
    store.remove("tiny")
    with pytest.raises(NotPulled):
        store.verify(weights)


def test_each_revision_is_verified_by_itself(store: Store, hub: FakeHub) -> None:
    old = store.pull(HUB_SPEC)
    hub.repos[REPO]["tokenizer.json"] = b'{"version": "2.0"}'
    new = store.pull(HUB_SPEC, renew=True)
    flip_bit((old.path / "tokenizer.json").resolve())
    assert store.verify("tiny").revision == new.revision
    with pytest.raises(WeightsDamaged):
        store.verify(old)
    assert store.ready(HUB_SPEC).revision == new.revision


def sealed(root: Path, files: dict[str, bytes]) -> Manifest:
    root.mkdir()
    for name, data in files.items():
        (root / name).write_bytes(data)
    records = tuple(record_of(root, name, sha256(data)) for name, data in files.items())
    digest = digest_of(records)
    return Manifest(2, "tiny", "dir", str(root), "", digest, root, records, 1.0, digest)


def test_a_header_that_lies_is_damage_even_if_it_was_sealed(tmp_path: Path) -> None:
    """By an older version that knew less, or by a bundle that somebody else wrote."""
    found = sealed(tmp_path / "m", {"model.safetensors": safetensors({"w": b"123"})[:-1]})
    again = checked(found, found.files, Recorder())
    assert again.damage is not None and again.damage.file == "model.safetensors"
    assert "tensors end at 3" in again.damage.actual


def test_files_are_read_at_the_same_time(tmp_path: Path) -> None:
    """As many as there are cores: the threads meet, or the barrier breaks."""
    cores = len(os.sched_getaffinity(0))
    found = sealed(tmp_path / "m", {f"f{n}": bytes([n]) * 100 for n in range(cores)})
    together = threading.Barrier(cores)

    def meet(_: int) -> None:
        together.wait(30)

    assert checked(found, found.files, Recorder(on_advance=meet)).damage is None


def test_the_work_ends_at_the_first_damage(tmp_path: Path) -> None:
    """The biggest files come first; behind one that is damaged nobody reads on."""
    files = {f"f{n:03}": bytes(100 * 300 - 100 * n) for n in range(300)}
    found = sealed(tmp_path / "m", files)
    (tmp_path / "m" / "f000").write_bytes(b"x")
    recorder = Recorder()
    damage = checked(found, found.files, recorder).damage
    assert damage is not None and damage.file == "f000"
    assert recorder.files < 300


def test_an_interruption_ends_the_threads_too(tmp_path: Path) -> None:
    found = sealed(tmp_path / "m", {f"f{n}": bytes(3 * 2**20) for n in range(20)})
    before = set(threading.enumerate())

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    recorder = Recorder(on_advance=interrupt)
    with pytest.raises(KeyboardInterrupt):
        checked(found, found.files, recorder)
    assert recorder.running == 0 and recorder.files == 0
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


def test_records_keep_what_the_source_calls_the_file(store: Store) -> None:
    store.pull(HUB_SPEC)
    before = {one.path: one for one in store.manifest(HUB_SPEC).files}
    store.verify("tiny")
    after = {one.path: one for one in store.manifest(HUB_SPEC).files}
    assert before == after
    assert all(isinstance(one, FileRecord) and one.oid for one in after.values())
