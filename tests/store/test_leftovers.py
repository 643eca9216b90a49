"""House-keeping: what goes and what never does, bytes that are true, kills at any moment."""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import StoreError, WeightsDamaged
from serve.sources import Kind
from serve.store import Manifest
from serve.store.leftover import Look, Wish, superseded
from serve.store.manifest import Damage
from tests.fakes.fake_hub import FakeHub
from tests.store.keeping import blob, disk_bytes, facts, locked, renew, with_lock
from tests.store.models import (
    HUB_SPEC,
    REPO,
    model_files,
    safetensors,
    spec,
    store_at,
)

MIB = 2**20


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: model_files(300_000)}) as running:
        yield running


def test_an_empty_house_has_nothing_to_clear(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    assert store.leftovers() == store.clear() == ()
    store.pull(HUB_SPEC)
    store.ready(HUB_SPEC)
    assert store.leftovers() == ()


def test_what_is_superseded_goes_and_shared_blobs_stay(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    old = store.pull(HUB_SPEC)
    new = renew(store, hub, **{"model.safetensors": safetensors({"w": b"y" * 200_000})})
    [found] = store.leftovers()
    assert (found.what, found.name, found.revision) == ("superseded", "tiny", old.revision)
    # Only the shard is another: the other files are one blob for both revisions.
    shard = next(f for f in hub_sizes(old.path) if f[0] == "model.safetensors")
    assert found.freed_bytes == shard[1]
    before = disk_bytes(tmp_path)
    assert store.clear() == (found,)
    assert before - disk_bytes(tmp_path) == found.freed_bytes
    assert store.manifests() == (new,) and store.weights(HUB_SPEC).revision == new.revision
    assert not old.path.exists() and store.leftovers() == ()


def hub_sizes(snapshot: Path) -> list[tuple[str, int]]:
    return [(path.name, path.stat().st_size) for path in snapshot.iterdir()]


def test_two_old_revisions_count_what_they_share_once(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    shard = safetensors({"w": b"z" * 100_000})
    renew(store, hub, **{"model.safetensors": shard})
    renew(store, hub, **{"config.json": b'{"a": 1}'})
    renew(store, hub, **{"model.safetensors": model_files()["model.safetensors"]})
    found = store.leftovers()
    assert [one.what for one in found] == ["superseded", "superseded"]
    before = disk_bytes(tmp_path)
    assert sum(one.freed_bytes for one in found) > len(shard)
    assert sum(one.freed_bytes for one in found) < len(shard) + 1000
    store.clear()
    assert before - disk_bytes(tmp_path) == sum(one.freed_bytes for one in found)
    assert len(store.manifests()) == 1 and store.weights(HUB_SPEC).is_complete


def test_what_is_locked_never_goes(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    store.pull(HUB_SPEC)
    old = store.manifest(HUB_SPEC)
    renew(store, hub, **{"config.json": b'{"a": 1}'})
    careful = with_lock(tmp_path, hub, locked(old))
    assert [one.what for one in store.leftovers(unused_s=0)] == ["superseded", "unused"]
    assert [one.what for one in careful.clear(unused_s=0)] == ["unused"]
    assert careful.weights(HUB_SPEC).revision == old.revision


def test_what_is_kept_never_goes(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    store.pull(HUB_SPEC)
    renew(store, hub, **{"config.json": b'{"a": 1}'})
    assert store.clear(unused_s=0, kept=frozenset({"tiny"})) == ()
    assert len(store.manifests()) == 2


def test_weights_that_nobody_used_go_on_demand_only(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    store.ready(HUB_SPEC)
    store.pull(spec(HUB_SPEC.source, "other"))
    used = next((tmp_path / "home" / "manifests").glob("tiny--*.used"))
    os.utime(used, (1000, 1000))
    assert store.leftovers() == () == store.leftovers(unused_s=3600)[1:]
    [found] = store.leftovers(unused_s=3600)
    assert (found.what, found.name, found.at) == ("unused", "tiny", 1000)
    assert found.freed_bytes == 0, "the other name has the same files"
    store.clear(unused_s=3600)
    assert [one.name for one in store.manifests()] == ["other"]
    assert store.weights(spec(HUB_SPEC.source, "other")).is_complete
    [found] = store.clear(unused_s=0)
    assert found.freed_bytes > 300_000 and list(blob(tmp_path).iterdir()) == []


def test_other_programs_files_are_not_touched(tmp_path: Path, hub: FakeHub) -> None:
    """One has a file of its own in our snapshot, a tag for it, and a snapshot and a blob too."""
    store = store_at(tmp_path, hub.endpoint)
    old = store.pull(HUB_SPEC)
    renew(store, hub, **{"config.json": b'{"a": 1}'})
    (old.path / "README.md").write_text("theirs")
    blob(tmp_path, "f" * 40).write_text("theirs")
    blob(tmp_path, f"{'e' * 40}.incomplete").write_text("theirs")
    theirs = old.path.parent / ("c" * 40)
    theirs.mkdir()
    (theirs / "x.json").symlink_to("../../blobs/" + "f" * 40)
    before = disk_bytes(tmp_path)
    [found] = store.clear()
    assert (found.what, found.freed_bytes) == ("superseded", 0)
    assert disk_bytes(tmp_path) == before and (old.path / "model.safetensors").is_file()
    assert len(store.manifests()) == 1


def test_a_tag_of_somebody_else_keeps_the_snapshot(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    old = store.pull(HUB_SPEC)
    renew(store, hub, **{"config.json": b'{"a": 1}'})
    (blob(tmp_path).parent / "refs" / "v1").write_text(old.revision)
    assert store.clear()[0].freed_bytes == 0
    assert (old.path / "model.safetensors").is_file()


def test_what_dead_pulls_left_goes(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    hub.faults.short["model.safetensors"] = 150_000
    with pytest.raises(StoreError):
        store.pull(HUB_SPEC)
    partials = list(blob(tmp_path).glob("*.inhouse.incomplete"))
    [found] = store.leftovers()
    assert (found.what, found.name, found.path) == ("partial", REPO, partials[0])
    assert found.freed_bytes == partials[0].stat().st_size > 0
    store.clear()
    assert store.leftovers() == () and not partials[0].exists()
    hub.faults.short.clear()
    assert store.pull(HUB_SPEC).is_complete


def test_what_a_running_pull_needs_stays(tmp_path: Path, hub: FakeHub) -> None:
    """Its half-done file, and the old revision of the repository that it reads."""
    store = store_at(tmp_path, hub.endpoint)
    old = store.pull(HUB_SPEC)
    renew(store, hub, **{"config.json": b'{"a": 1}'})
    hub.repos[REPO]["model.safetensors"] = safetensors({"w": b"q" * 400_000})
    hub.faults.stall_at = 65536
    with ThreadPoolExecutor(1) as pool:
        pull = pool.submit(store_at(tmp_path, hub.endpoint).pull, spec(HUB_SPEC.source, "other"))
        assert hub.faults.stalled.wait(60)
        [found] = store.leftovers()
        assert (found.what, found.is_busy) == ("superseded", True)
        assert store.clear() == (found,)
        assert old.path.is_dir() and len(store.manifests()) == 2
        hub.faults.resume.set()
        assert pull.result().is_complete
    [cleared] = store.clear()
    assert not cleared.is_busy and not old.path.exists()


def test_quarantined_weights_and_what_was_put_aside(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    weights = store.pull(HUB_SPEC)
    shard = (weights.path / "model.safetensors").resolve()
    shard.write_bytes(b"x" * shard.stat().st_size)
    with pytest.raises(WeightsDamaged):
        store.verify("tiny")
    found = store.leftovers()
    assert facts(found) == [("quarantined", "tiny"), ("aside", REPO)]
    kept = with_lock(tmp_path, hub, locked(store.manifests()[0]))
    assert facts(kept.leftovers()) == [("aside", REPO)], "what is locked stays, damaged or not"
    store.clear()
    assert store.manifests() == () and list(blob(tmp_path).iterdir()) == []


def test_the_shelf_views_and_imports(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    kept = store.ready(HUB_SPEC)
    home = tmp_path / "home"
    for folder in (
        "weights/.part--tiny", "weights/.pull--tiny", "weights/tiny--0123456789ab",
        "views/gone--0123456789ab", "views/.part--tiny--0123456789ab", "imports/abcdef",
    ):  # fmt: skip
        (home / folder).mkdir(parents=True)
        (home / folder / "content").write_bytes(b"x" * 1000)
    (home / "weights" / "not ours").mkdir()
    found = store.leftovers()
    assert facts(found) == [
        ("arrival", "abcdef"), ("unsealed", "tiny"), ("partial", "tiny"), ("unsealed", "tiny"),
        ("view", "tiny"), ("view", "gone"),
    ]  # fmt: skip
    assert {one.freed_bytes for one in found} == {1000}
    store.clear()
    assert store.leftovers() == () and (kept.view / "config.json").is_file()
    assert (home / "weights" / "not ours").is_dir()


def test_a_seal_that_cannot_be_read_protects_the_shelf(tmp_path: Path, hub: FakeHub) -> None:
    """It may be of a newer version, and seal anything."""
    store = store_at(tmp_path, hub.endpoint)
    store.pull(HUB_SPEC)
    (tmp_path / "home" / "weights" / "new--0123456789ab").mkdir(parents=True)
    (tmp_path / "home" / "manifests" / "new--1.json").write_text(json.dumps({"format": 99}))
    assert store.clear() == ()


def test_a_blob_of_ours_that_nobody_names(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    weights = store.pull(HUB_SPEC)
    shard = (weights.path / "model.safetensors").resolve()
    for seal in (tmp_path / "home" / "manifests").glob("*.json"):
        seal.unlink()
    assert store.leftovers() == (), "a snapshot without a seal may be somebody else's"
    shutil.rmtree(weights.path)
    blob(tmp_path, "f" * 40).write_text("theirs")
    found = store.clear()
    assert {one.what for one in found} == {"unnamed"} and shard in {one.path for one in found}
    assert [path.name for path in blob(tmp_path).iterdir()] == ["f" * 40]


def test_a_seal_that_was_being_written_goes(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    store.pull(HUB_SPEC)
    torn = tmp_path / "home" / "manifests" / ".tiny--0123.json.1-2.part"
    torn.write_text("{")
    [found] = store.clear()
    assert (found.what, found.name, found.path) == ("unsealed", "tiny", torn)
    assert not torn.exists() and len(store.manifests()) == 1


@st.composite
def seals(draw: st.DrawFn) -> list[Manifest]:
    """Some seals of few names and sources, of different ages; some damaged."""
    found = []
    for number in range(draw(st.integers(0, 8))):
        kinds: list[Kind] = ["hf", "wheel", "dir"]
        name, kind = draw(st.sampled_from("ab")), draw(st.sampled_from(kinds))
        damage = Damage("x", "y", "z", 0.0) if draw(st.booleans()) else None
        age = draw(st.floats(0, 100))
        found.append(
            Manifest(
                2, name, kind, "org/it", "main", f"{number:040x}", Path("/x"), (), age, "0" * 64,
                damage=damage,
            )
        )  # fmt: skip
    return found


@given(seals(), st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)), st.none() | st.just(0.0))
def test_what_may_go_is_never_the_newest_good_one_nor_locked(
    held: list[Manifest], locked_ones: set[int], torn: set[int], unused_s: float | None
) -> None:
    pins = locked(*(one for number, one in enumerate(held) if number in locked_ones))
    whole = [one for number, one in enumerate(held) if number not in torn]
    look = Look(lambda seal: seal in whole, lambda seal: 1.0)
    going = dict(superseded(tuple(held), pins, Wish(unused_s, frozenset("b")), look))
    pinned = {(one.name, one.revision) for one in pins.models}
    assert not [one for one in going if (one.name, one.revision) in pinned]
    assert {one.name for one in going} <= {"a"} and "dir" not in {one.kind for one in going}
    for kind in ("hf", "wheel"):
        good = [one for one in whole if (one.name, one.kind, one.damage) == ("a", kind, None)]
        if good:
            newest = max(one.sealed_at for one in good)
            staying = [one for one in good if going.get(one) in (None, "unused")]
            assert any(one.sealed_at == newest for one in staying)


def test_an_older_revision_stays_while_the_newer_one_is_not_whole(
    tmp_path: Path, hub: FakeHub
) -> None:
    """It is the one that is served then."""
    store = store_at(tmp_path, hub.endpoint)
    old = store.pull(HUB_SPEC)
    new = renew(store, hub, **{"config.json": b'{"a": 1}'})
    (new.path / "config.json").unlink()
    assert store.clear() == () and store.weights(HUB_SPEC).revision == old.revision
