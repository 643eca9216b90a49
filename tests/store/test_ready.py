"""What an engine is given: what was verified, or an error that names the file."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import try_to_load_from_cache

from serve.errors import (
    NotPulled,
    RepoNotFound,
    SourceUnreachable,
    WeightsDamaged,
)
from serve.sources import DirSource, HubSource
from serve.store import Store, Weights
from tests.fakes.contents import sha256
from tests.fakes.fake_hub import FakeHub
from tests.store.damage import DAMAGES, flip_bit, flip_bit_secretly, truncate
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

SHARD = "model-00002-of-00003.safetensors"
Damage = Callable[[Path], None]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: sharded_files(3, 40_000)}) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path, hub: FakeHub) -> Store:
    return store_at(tmp_path, hub.endpoint)


def blob(weights: Weights, name: str = SHARD) -> Path:
    return (weights.path / name).resolve()


def folder_at(tmp_path: Path) -> Path:
    root = tmp_path / "my model"
    root.mkdir()
    for name, data in model_files().items():
        if "/" not in name:
            (root / name).write_bytes(data)
    return root


def test_the_first_time_fetches_and_later_ones_look(store: Store, hub: FakeHub) -> None:
    first = store.ready(HUB_SPEC)
    assert first.used_at is not None
    hub.requests.clear()
    recorder = Recorder()
    again = store.ready(HUB_SPEC, recorder)
    assert again.digest == first.digest and again.used_at >= first.used_at  # type: ignore[operator]
    assert hub.requests == [] and recorder.labels == [], "nothing is read"


def test_what_was_only_pulled_was_never_used(store: Store) -> None:
    assert store.pull(HUB_SPEC).used_at is None
    [held] = store.list()
    assert held.used_at is None


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", [SHARD, "config.json", "tokenizer.json"])
def test_damage_is_found_named_and_never_loaded(
    store: Store, hub: FakeHub, tmp_path: Path, damage: Damage, name: str
) -> None:
    weights = store.pull(HUB_SPEC)
    damage(blob(weights, name))
    with pytest.raises(WeightsDamaged) as caught:
        store.ready(HUB_SPEC)
    assert (caught.value.name, caught.value.file) == ("tiny", name)
    assert caught.value.expected == sha256(hub.repos[REPO][name]) != caught.value.actual
    [held] = store.list()
    assert held.damage is not None and held.damage.file == name

    recorder = Recorder()
    for _ in range(2):
        with pytest.raises(WeightsDamaged):
            store_at(tmp_path).ready(HUB_SPEC, recorder)
    with pytest.raises(WeightsDamaged):
        store.weights(HUB_SPEC)
    assert recorder.labels == [], "who is in quarantine is not read again"
    hub_home = tmp_path / "hf" / "hub"
    assert try_to_load_from_cache(REPO, name, hub_home, weights.revision) is None, (
        "another tool sees that the file is missing"
    )


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_pull_heals_and_fetches_only_what_is_damaged(
    store: Store, hub: FakeHub, damage: Damage
) -> None:
    weights = store.pull(HUB_SPEC)
    others = {p.name: p.stat().st_ino for p in weights.path.iterdir() if p.name != SHARD}
    damage(blob(weights))
    with pytest.raises(WeightsDamaged):
        store.ready(HUB_SPEC)
    hub.requests.clear()
    healed = store.pull(HUB_SPEC)
    assert healed.digest == weights.digest and healed.damage is None
    assert [r.path.rpartition("/")[2] for r in hub.asked_for("GET", "/cdn/")] == [
        sha256(hub.repos[REPO][SHARD])
    ]
    assert store.ready(HUB_SPEC).view == healed.view
    assert others == {p.name: p.stat().st_ino for p in weights.path.iterdir() if p.name != SHARD}
    assert not list(weights.path.parents[1].rglob("*damaged*"))


def test_a_pull_finds_the_damage_itself(store: Store, hub: FakeHub) -> None:
    weights = store.pull(HUB_SPEC)
    flip_bit_secretly(blob(weights))
    assert store.pull(HUB_SPEC).digest == weights.digest
    assert blob(weights).read_bytes() == hub.repos[REPO][SHARD]


def test_damage_that_cannot_be_cured_now_stays_in_quarantine(store: Store, tmp_path: Path) -> None:
    flip_bit(blob(store.pull(HUB_SPEC)))
    away = store_at(tmp_path)  # no Hub answers there
    with pytest.raises((SourceUnreachable, WeightsDamaged)):
        away.pull(HUB_SPEC)
    with pytest.raises(WeightsDamaged):
        away.ready(HUB_SPEC)


def test_the_same_content_with_other_times_is_read_once(store: Store, hub: FakeHub) -> None:
    weights = store.ready(HUB_SPEC)
    os.utime(blob(weights), (1, 1))
    blob(weights, "config.json").chmod(0o600)
    hub.requests.clear()
    recorder = Recorder()
    assert store.ready(HUB_SPEC, recorder).digest == weights.digest
    read = sum(blob(weights, name).stat().st_size for name in (SHARD, "config.json"))
    assert recorder.totals == [read] and recorder.advanced == read and recorder.files == 2
    again = Recorder()
    store.ready(HUB_SPEC, again)
    assert again.labels == [] and hub.requests == []


def test_a_file_that_is_gone_is_fetched_again(store: Store, hub: FakeHub) -> None:
    weights = store.ready(HUB_SPEC)
    blob(weights).unlink()
    with pytest.raises(NotPulled):
        store.weights(HUB_SPEC)
    hub.requests.clear()
    assert store.ready(HUB_SPEC).digest == weights.digest
    assert len(hub.asked_for("GET", "/cdn/")) == 1


def test_links_that_were_swapped_are_set_right_without_a_download(
    store: Store, hub: FakeHub
) -> None:
    """A link is at fault there, and no blob: both stay."""
    weights = store.ready(HUB_SPEC)
    one, two = weights.path / "model-00001-of-00003.safetensors", weights.path / SHARD
    spare = weights.path / "spare"
    one.rename(spare)
    two.rename(one)
    spare.rename(two)
    with pytest.raises(WeightsDamaged):
        store.ready(HUB_SPEC)
    hub.requests.clear()
    assert store.pull(HUB_SPEC).digest == weights.digest
    assert store.ready(HUB_SPEC).damage is None
    assert hub.asked_for("GET", "/cdn/") == []


def test_quarantine_does_not_give_way_to_older_weights(store: Store, hub: FakeHub) -> None:
    old = store.pull(HUB_SPEC)
    hub.repos[REPO]["tokenizer.json"] = b'{"version": "2.0"}'
    new = store.pull(HUB_SPEC, renew=True)
    assert [held.revision for held in store.list()] == [old.revision, new.revision]
    flip_bit(blob(new, "tokenizer.json"))
    with pytest.raises(WeightsDamaged):
        store.ready(HUB_SPEC)
    with pytest.raises(WeightsDamaged):
        store.ready(HUB_SPEC)


def test_renew_asks_which_revision_it_is_now(store: Store, hub: FakeHub) -> None:
    old = store.pull(HUB_SPEC)
    hub.repos[REPO]["tokenizer.json"] = b'{"version": "2.0"}'
    assert store.pull(HUB_SPEC).revision == old.revision
    new = store.pull(HUB_SPEC, renew=True)
    assert new.revision == hub.commit(REPO) != old.revision
    assert store.ready(HUB_SPEC).revision == new.revision
    assert store.pull(HUB_SPEC).revision == new.revision


def test_what_is_damaged_is_fetched_at_its_own_revision(store: Store, hub: FakeHub) -> None:
    """A cure is no upgrade; where the revision is gone for good, --renew takes what there is."""
    weights = store.pull(HUB_SPEC)
    flip_bit(blob(weights))
    hub.repos[REPO]["tokenizer.json"] = b'{"version": "2.0"}'
    with pytest.raises(RepoNotFound) as caught:
        store.pull(HUB_SPEC)
    assert caught.value.revision == weights.revision
    assert store.pull(HUB_SPEC, renew=True).revision == hub.commit(REPO)
    assert store.ready(HUB_SPEC).revision == hub.commit(REPO)


def test_a_folder_that_was_changed_is_refused_until_it_is_pulled(tmp_path: Path) -> None:
    root, store = folder_at(tmp_path), store_at(tmp_path)
    model = spec(DirSource(root))
    old = store.ready(model)
    (root / "model.safetensors").write_bytes(safetensors({"w": b"new" * 100}))
    before = sorted((p, p.stat().st_ctime_ns) for p in root.iterdir())
    for _ in range(2):
        with pytest.raises(WeightsDamaged) as caught:
            store.ready(model)
        assert caught.value.file == "model.safetensors"
    assert sorted((p, p.stat().st_ctime_ns) for p in root.iterdir()) == before, "never touched"
    new = store.pull(model)
    assert new.digest != old.digest and store.ready(model).digest == new.digest
    assert [held.digest for held in store.list()] == [new.digest]


def test_a_file_that_is_gone_from_a_folder_is_a_change(tmp_path: Path) -> None:
    root, store = folder_at(tmp_path), store_at(tmp_path)
    model = spec(DirSource(root))
    store.ready(model)
    (root / "tokenizer_config.json").unlink()
    with pytest.raises(WeightsDamaged) as caught:
        store.ready(model)
    assert (caught.value.file, caught.value.actual) == ("tokenizer_config.json", "no such file")


def test_a_folder_that_is_away_for_a_while(tmp_path: Path) -> None:
    root, store = folder_at(tmp_path), store_at(tmp_path)
    model = spec(DirSource(root))
    weights = store.ready(model)
    root.rename(tmp_path / "unmounted")
    with pytest.raises(RepoNotFound):
        store.ready(model)
    (tmp_path / "unmounted").rename(root)
    assert store.ready(model).digest == weights.digest


def test_damage_is_refused_where_nothing_can_be_noted(small_disk: Path, hub: FakeHub) -> None:
    store = store_at(small_disk, hub.endpoint)
    weights = store.ready(HUB_SPEC)
    truncate(blob(weights))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for _ in range(2):
        with pytest.raises(WeightsDamaged):
            store.ready(HUB_SPEC)


def test_a_read_only_disk_is_served_from(small_disk: Path, hub: FakeHub) -> None:
    store = store_at(small_disk, hub.endpoint)
    weights = store.ready(HUB_SPEC)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert store.ready(HUB_SPEC) == weights


def test_one_cache_under_two_names(store: Store, hub: FakeHub) -> None:
    """The damage is the files', so it is seen from both names; one pull is enough for both."""
    other = replace(HUB_SPEC, name="other")
    weights = store.pull(HUB_SPEC)
    store.pull(other)
    flip_bit(blob(weights))
    with pytest.raises(WeightsDamaged):
        store.ready(HUB_SPEC)
    assert store.ready(other).digest == weights.digest  # it was put aside, so it is fetched anew
    with pytest.raises(WeightsDamaged):
        store.ready(HUB_SPEC)
    assert store.pull(HUB_SPEC).digest == store.ready(HUB_SPEC).digest == weights.digest


def test_a_copy_of_a_cache_without_links(store: Store, hub: FakeHub, tmp_path: Path) -> None:
    """As `cp -rL` and file systems without links leave it: files in the snapshot itself."""
    weights = store.pull(HUB_SPEC)
    for pointer in weights.path.iterdir():
        content = pointer.read_bytes()
        pointer.unlink()
        pointer.write_bytes(content)
    shutil.rmtree(weights.path.parents[1] / "blobs")
    assert store.ready(HUB_SPEC).digest == weights.digest
    flip_bit(weights.path / SHARD)
    with pytest.raises(WeightsDamaged):
        store.ready(HUB_SPEC)
    assert store.pull(HUB_SPEC).digest == store.ready(HUB_SPEC).digest == weights.digest


def test_another_revision_of_the_same_repository(store: Store, hub: FakeHub) -> None:
    weights = store.ready(HUB_SPEC)
    pinned = replace(HUB_SPEC, source=HubSource(REPO, weights.revision))
    hub.requests.clear()
    assert store.ready(pinned).digest == weights.digest and hub.requests == []
