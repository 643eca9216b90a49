"""Policy and lock at the store's door, and sources that the operator chose."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serve.catalog import ModelSpec
from serve.errors import HashMismatch, LockMismatch, NotAllowed, StoreError, WeightsDamaged
from serve.lock import Lock, LockedFile, LockedModel
from serve.policy import Policy
from serve.sources import DirSource, HubSource
from serve.store import Store
from serve.store import manifest as seals
from tests.fakes.fake_hub import FakeHub
from tests.store.damage import flip_bit
from tests.store.models import HUB_SPEC, REPO, access_at, model_files, spec

FORK = "org/fork"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fork = model_files() | {"tokenizer.json": b'{"version": "fork"}'}
    with FakeHub({REPO: model_files(), FORK: fork}) as running:
        yield running


def store_with(
    tmp_path: Path, hub: FakeHub, policy: Policy | None = None, lock: Lock | None = None
) -> Store:
    return Store(tmp_path / "home", access_at(tmp_path, hub.endpoint), policy, lock)


def lock_of(store: Store, model: ModelSpec = HUB_SPEC) -> Lock:
    found = store.manifest(model)
    files = tuple(LockedFile(one.path, one.size, one.sha256) for one in found.files)
    return Lock((LockedModel(
        name=model.name, kind=found.kind, source=found.source, revision=found.revision,
        license=found.license, entry=model.digest, digest=found.digest, files=files,
    ),))  # fmt: skip


def changed(lock: Lock, **facts: object) -> Lock:
    return Lock((replace(lock.models[0], **facts),))  # type: ignore[arg-type]


NO_POLICY = [
    (Policy(licenses=("Apache-2.0",)), "policy.licenses"),
    (Policy(sources=("bundle",)), "policy.sources"),
    (Policy(repos=("Qwen/*",)), "policy.repos"),
]


@pytest.mark.parametrize(("policy", "rule"), NO_POLICY)
def test_what_is_not_allowed_is_neither_fetched_nor_served(
    tmp_path: Path, hub: FakeHub, policy: Policy, rule: str
) -> None:
    strict = store_with(tmp_path, hub, policy)
    for get in (strict.pull, strict.ready):
        with pytest.raises(NotAllowed) as caught:
            get(HUB_SPEC)
        assert caught.value.rule == rule
    with pytest.raises(NotAllowed):
        strict.pull(HUB_SPEC, renew=True)
    assert hub.requests == []
    store_with(tmp_path, hub).pull(HUB_SPEC)
    hub.requests.clear()
    for get in (strict.pull, strict.ready):
        with pytest.raises(NotAllowed):
            get(HUB_SPEC)
    assert strict.weights(HUB_SPEC).name == "tiny", "to look is allowed"
    assert hub.requests == []


def by_bundle(tmp_path: Path, hub: FakeHub, path: str) -> None:
    """As an import leaves it."""
    store = store_with(tmp_path, hub)
    store.pull(HUB_SPEC)
    [found] = store.manifests()
    seals.seal(tmp_path / "home", replace(found, via=f"bundle {path}", is_chosen=True))


def test_what_came_in_a_bundle_is_judged_as_such(tmp_path: Path, hub: FakeHub) -> None:
    by_bundle(tmp_path, hub, "x.inhouse")
    store_with(tmp_path, hub, Policy(sources=("bundle",))).ready(HUB_SPEC)
    with pytest.raises(NotAllowed) as caught:
        store_with(tmp_path, hub, Policy(sources=("hf",))).ready(HUB_SPEC)
    assert caught.value.value == "bundle"


def test_a_cure_asks_only_where_it_may(tmp_path: Path, hub: FakeHub) -> None:
    """Weights from a bundle are damaged, and the Hub is not allowed: nobody asks it."""
    by_bundle(tmp_path, hub, "x.inhouse")
    store = store_with(tmp_path, hub, Policy(sources=("bundle",)))
    flip_bit((store.list()[0].path / "model.safetensors").resolve())
    with pytest.raises(WeightsDamaged):
        store.ready(HUB_SPEC)
    hub.requests.clear()
    with pytest.raises(NotAllowed):
        store.pull(HUB_SPEC)
    assert hub.requests == []


def test_a_chosen_source_answers_the_name(tmp_path: Path, hub: FakeHub) -> None:
    store = store_with(tmp_path, hub)
    chosen = HUB_SPEC.with_source(HubSource(FORK))
    weights = store.pull(chosen)
    hub.requests.clear()
    assert store.ready(HUB_SPEC).digest == store.pull(HUB_SPEC).digest == weights.digest
    assert store.weights(HUB_SPEC).source == FORK and hub.requests == []
    with pytest.raises(StoreError):
        store.weights(HUB_SPEC.with_source(HubSource("org/third")))


def test_the_last_choice_counts(tmp_path: Path, hub: FakeHub) -> None:
    store = store_with(tmp_path, hub)
    chosen = HUB_SPEC.with_source(HubSource(FORK))
    fork = store.pull(chosen).digest
    own = store.pull(HUB_SPEC, renew=True).digest
    assert store.ready(HUB_SPEC).digest == own != fork
    assert store.pull(chosen).digest == fork, "held already, and chosen again"
    assert store.ready(HUB_SPEC).digest == fork


def test_a_source_that_was_the_catalogs_can_be_chosen(tmp_path: Path, hub: FakeHub) -> None:
    """The entry moves on to another repository; who chose the old one keeps it."""
    store = store_with(tmp_path, hub)
    old = store.pull(HUB_SPEC)
    moved = replace(HUB_SPEC, source=HubSource(FORK))
    chosen = moved.with_source(HubSource(REPO))
    hub.requests.clear()
    assert store.pull(chosen).digest == old.digest == store.ready(moved).digest
    assert hub.requests == []


def test_the_policy_sees_where_chosen_weights_come_from(tmp_path: Path, hub: FakeHub) -> None:
    store_with(tmp_path, hub).pull(HUB_SPEC.with_source(HubSource(FORK)))
    with pytest.raises(NotAllowed) as caught:
        store_with(tmp_path, hub, Policy(repos=(REPO,))).ready(HUB_SPEC)
    assert caught.value.value == FORK


def test_a_chosen_source_is_healed_from_there(tmp_path: Path, hub: FakeHub) -> None:
    store = store_with(tmp_path, hub)
    weights = store.pull(HUB_SPEC.with_source(HubSource(FORK)))
    flip_bit((weights.path / "model.safetensors").resolve())
    hub.requests.clear()
    healed = store.pull(HUB_SPEC)
    assert (healed.source, healed.digest) == (FORK, weights.digest)
    assert not hub.asked_for("GET", f"/api/models/{REPO}/")
    assert store.ready(HUB_SPEC).source == FORK


def test_a_folder_can_be_chosen_for_a_name(tmp_path: Path, hub: FakeHub) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    for name, data in model_files(5000).items():
        if "/" not in name:
            (root / name).write_bytes(data)
    store = store_with(tmp_path, hub)
    store.pull(HUB_SPEC)
    mine = store.pull(HUB_SPEC.with_source(DirSource(root)))
    assert store.ready(HUB_SPEC).path == mine.path == root
    store.remove("tiny")
    assert (root / "config.json").exists()
    with pytest.raises(StoreError):
        store.weights(HUB_SPEC)


def test_a_lock_pulls_what_it_names_whatever_the_branch_is_now(
    tmp_path: Path, hub: FakeHub
) -> None:
    lock = lock_of(_pulled(tmp_path / "a", hub))
    strict = store_with(tmp_path / "b", hub, lock=lock)
    weights = strict.pull(HUB_SPEC)
    locked = lock.models[0]
    assert (weights.revision, weights.digest) == (locked.revision, locked.digest)
    assert strict.ready(HUB_SPEC).digest == locked.digest
    hub.requests.clear()
    assert store_with(tmp_path / "b", hub).ready(HUB_SPEC).digest == locked.digest
    assert hub.requests == [], "without the lock it answers its branch"


def _pulled(tmp_path: Path, hub: FakeHub) -> Store:
    tmp_path.mkdir(exist_ok=True)
    store = store_with(tmp_path, hub)
    store.pull(HUB_SPEC)
    return store


def test_another_revision_than_the_locked_one_is_not_served(tmp_path: Path, hub: FakeHub) -> None:
    store = _pulled(tmp_path / "a", hub)
    lock = lock_of(store)
    hub.repos[REPO]["tokenizer.json"] = b'{"version": "2.0"}'
    new = store.pull(HUB_SPEC, renew=True)
    assert store.ready(HUB_SPEC).revision == new.revision
    strict = store_with(tmp_path / "a", hub, lock=lock)
    hub.requests.clear()
    assert strict.ready(HUB_SPEC).revision == strict.pull(HUB_SPEC).revision != new.revision
    assert hub.requests == []


def test_what_no_lock_names_is_refused_before_any_request(tmp_path: Path, hub: FakeHub) -> None:
    lock = lock_of(_pulled(tmp_path / "a", hub))
    strict = store_with(tmp_path / "b", hub, lock=lock)
    hub.requests.clear()
    for model in (
        spec(HUB_SPEC.source, "other"),
        replace(HUB_SPEC, remote_code="unneeded"),
        HUB_SPEC.with_source(HubSource(FORK)),
    ):
        for get in (strict.pull, strict.ready):
            with pytest.raises(LockMismatch):
                get(model)
    assert hub.requests == [] and strict.list() == ()


def test_a_locked_source_that_is_another_is_refused_before_any_request(
    tmp_path: Path, hub: FakeHub
) -> None:
    lock = changed(lock_of(_pulled(tmp_path / "a", hub)), source="org/else")
    strict = store_with(tmp_path / "b", hub, lock=lock)
    hub.requests.clear()
    with pytest.raises(LockMismatch) as caught:
        strict.pull(HUB_SPEC)
    assert (caught.value.what, caught.value.expected) == ("source", "org/else")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_other_bytes_than_the_locked_ones_are_refused(
    tmp_path: Path, hub: FakeHub, name: str
) -> None:
    lock = lock_of(_pulled(tmp_path / "a", hub))
    files = tuple(
        replace(one, sha256="0" * 64) if one.path == name else one for one in lock.models[0].files
    )
    lying = changed(lock, files=files)
    fresh = store_with(tmp_path / "b", hub, lock=lying)
    for get in (fresh.pull, fresh.ready):
        with pytest.raises(LockMismatch) as caught:
            get(HUB_SPEC)
        assert caught.value.what == name
    assert fresh.list() == ()
    held = store_with(tmp_path / "a", hub, lock=lying)
    hub.requests.clear()
    for get in (held.pull, held.ready):
        with pytest.raises(LockMismatch) as caught:
            get(HUB_SPEC)
        assert caught.value.what == name
    assert hub.requests == []


@pytest.mark.parametrize("change", ["missing", "more"])
def test_other_files_than_the_locked_ones_are_refused(
    tmp_path: Path, hub: FakeHub, change: str
) -> None:
    lock = lock_of(_pulled(tmp_path / "a", hub))
    files = lock.models[0].files
    files = files[1:] if change == "missing" else (*files, LockedFile("merges.txt", 1, "0" * 64))
    lying = changed(lock, files=files)
    for home in ("a", "b"):
        with pytest.raises(LockMismatch):
            store_with(tmp_path / home, hub, lock=lying).pull(HUB_SPEC)


def test_damage_is_found_under_a_lock_too(tmp_path: Path, hub: FakeHub) -> None:
    store = _pulled(tmp_path / "a", hub)
    lock = lock_of(store)
    weights = store.ready(HUB_SPEC)
    flip_bit((weights.path / "model.safetensors").resolve())
    strict = store_with(tmp_path / "a", hub, lock=lock)
    with pytest.raises(WeightsDamaged):
        strict.ready(HUB_SPEC)
    assert strict.pull(HUB_SPEC).digest == lock.models[0].digest


def test_a_source_that_gives_other_bytes_for_a_sealed_revision(
    tmp_path: Path, hub: FakeHub
) -> None:
    """A mirror that rewrote history: the blob ids agree, and what was sealed does not."""
    store = _pulled(tmp_path / "a", hub)
    [found] = store.manifests()
    files = tuple(
        replace(one, sha256="0" * 64) if one.path == "config.json" else one for one in found.files
    )
    other = replace(found, files=files, digest=seals.digest_of(files))
    seals.seal(tmp_path / "a" / "home", other)
    (found.path / "model.safetensors").resolve().unlink()
    with pytest.raises(HashMismatch) as caught:
        store.pull(HUB_SPEC)
    assert caught.value.file == "config.json"
