"""From the Hub to one machine, from there to others: the same bytes, and the same lock."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from serve.catalog import ModelSpec
from serve.errors import AccessDenied, LockMismatch, RepoNotFound, SourceUnreachable
from serve.lock import Lock, LockedFile, LockedModel
from serve.mirror import Terms
from serve.policy import Policy
from serve.sources import HubSource
from serve.store import Access, Manifest, Store
from tests.fakes.fake_hub import FakeHub
from tests.mirror.houses import House, Running, serving
from tests.store.models import (
    HUB_SPEC,
    REPO,
    Recorder,
    model_files,
    no_convert,
    no_wheel,
    nothing_is_held,
    spec,
    store_at,
)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: model_files(3 << 20)}) as running:
        yield running


@pytest.fixture
def first(tmp_path: Path, hub: FakeHub) -> Store:
    """Machine 1, which has pulled from the Hub."""
    store = store_at(tmp_path / "1", hub.endpoint)
    store.pull(HUB_SPEC)
    return store


def locked_store(folder: Path, endpoint: str, lock: Lock) -> Store:
    access = Access(endpoint, None, folder / "hf", no_convert, no_wheel)
    return Store(folder / "home", access, Policy(), lock)


def lock_of(found: Manifest, entry: ModelSpec) -> Lock:
    files = tuple(LockedFile(one.path, one.size, one.sha256) for one in found.files)
    model = LockedModel(
        found.name, found.kind, found.source, found.revision, found.license, entry.digest,
        found.digest, files,
    )  # fmt: skip
    return Lock((model,))


def facts(found: Manifest) -> tuple[object, ...]:
    """What of a manifest is the same on every machine."""
    files = [(one.path, one.size, one.sha256, one.oid) for one in found.files]
    return found.name, found.kind, found.source, found.revision, found.digest, files


def content(found: Manifest) -> dict[str, bytes]:
    return {one.path: (found.path / one.path).read_bytes() for one in found.files}


def test_a_lock_made_here_holds_there(first: Store, hub: FakeHub, tmp_path: Path) -> None:
    held = first.manifest(HUB_SPEC)
    lock = lock_of(held, HUB_SPEC)
    hub.repos[REPO]["config.json"] = b"{}"  # the Hub moves on; nobody is led astray
    with serving(first) as mirror:
        second = locked_store(tmp_path / "2", mirror.endpoint, lock)
        second.pull(HUB_SPEC)
        got = second.manifest(HUB_SPEC)
    assert facts(got) == facts(held)
    assert content(got) == content(held)


def test_a_mirror_is_not_trusted(first: Store, tmp_path: Path) -> None:
    held = first.manifest(HUB_SPEC)
    lock = lock_of(held, HUB_SPEC)
    house = House(tmp_path / "evil")
    files = content(held) | {"config.json": b'{"architectures": ["LlamaForCausalLM"], "x": 1}'}
    evil = house.hold("tiny", files, commit=held.revision)
    house.write(replace(evil, source=REPO))
    with serving(house.store) as mirror, pytest.raises(LockMismatch):
        locked_store(tmp_path / "2", mirror.endpoint, lock).pull(HUB_SPEC)
    assert nothing_is_held(tmp_path / "2")


def test_a_mirror_of_a_mirror(first: Store, tmp_path: Path) -> None:
    held = first.manifest(HUB_SPEC)
    with serving(first) as nearest:
        second = store_at(tmp_path / "2", nearest.endpoint)
        second.pull(HUB_SPEC)
    with serving(second) as next_one:
        third = store_at(tmp_path / "3", next_one.endpoint)
        third.pull(HUB_SPEC)
        folder = snapshot_download(
            REPO, endpoint=next_one.endpoint, cache_dir=tmp_path / "4", token=False
        )
    assert facts(third.manifest(HUB_SPEC)) == facts(held)
    assert {p.name: p.read_bytes() for p in Path(folder).iterdir()} == content(held)


def test_a_pull_goes_on_where_a_dead_mirror_left_it(first: Store, tmp_path: Path) -> None:
    class Gone(Exception):
        pass

    def stop_at_a_half(count: int) -> None:
        if recorder.advanced > 1 << 20:
            raise Gone

    recorder = Recorder(on_advance=stop_at_a_half)
    with serving(first) as mirror, pytest.raises(Gone):
        store_at(tmp_path / "2", mirror.endpoint).pull(HUB_SPEC, recorder)
    assert nothing_is_held(tmp_path / "2")
    with serving(first) as mirror:
        store_at(tmp_path / "2", mirror.endpoint).pull(HUB_SPEC)
        sent = mirror.metric(f'inhouse_mirror_sent_bytes_total{{repo="{REPO}"}}')
        assert mirror.metric('inhouse_mirror_requests_total{route="resolve",status="206"}') >= 1
    assert sent < 3 << 20
    assert content(store_at(tmp_path / "2").manifest(HUB_SPEC)) == content(first.manifest(HUB_SPEC))


def test_weights_that_no_hub_has(tmp_path: Path) -> None:
    house = House(tmp_path / "1")
    files = {name: data for name, data in model_files().items() if "/" not in name}
    wanted = {k: files[k] for k in ("config.json", "tokenizer.json", "model.safetensors")}
    held = house.hold("tiny", wanted, kind="wheel")
    entry = spec(HubSource("inhouse/tiny"))
    with serving(house.store) as mirror:
        store = store_at(tmp_path / "2", mirror.endpoint)
        store.pull(entry)
    got = store.manifest(entry)
    assert got.digest == held.digest and got.revision == held.digest[:40]


def refuse(mirror: Running, tmp_path: Path, token: str | None = None) -> None:
    store_at(tmp_path / "2", mirror.endpoint, token).pull(HUB_SPEC)


def test_refusals_are_understood(first: Store, tmp_path: Path) -> None:
    with serving(first, None, "other/*") as mirror, pytest.raises(RepoNotFound):
        refuse(mirror, tmp_path)
    with serving(first, Terms(key="k")) as mirror:
        for token in (None, "wrong"):
            with pytest.raises(AccessDenied) as caught:
                refuse(mirror, tmp_path, token)
            assert caught.value.has_token == (token is not None)
    held = first.manifest(HUB_SPEC)
    with serving(first) as mirror:
        place = held.path / "model.safetensors"
        place.write_bytes(place.read_bytes() + b" ")
        with pytest.raises((SourceUnreachable, RepoNotFound)):
            refuse(mirror, tmp_path)
    assert nothing_is_held(tmp_path / "2")
