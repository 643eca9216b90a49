"""What an engine sees: the verified files, and nothing that anybody else put beside them."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from serve.errors import DiskFull, UnsafeWeights
from serve.sources import DirSource
from serve.store import Store
from tests.fakes.fake_hub import FakeHub
from tests.store.models import FETCHED, HUB_SPEC, REPO, model_files, spec, store_at


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: model_files()}) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path, hub: FakeHub) -> Store:
    return store_at(tmp_path, hub.endpoint)


def names(view: Path) -> set[str]:
    return {path.relative_to(view).as_posix() for path in view.rglob("*") if not path.is_dir()}


def test_it_has_exactly_the_verified_files(store: Store, tmp_path: Path) -> None:
    weights = store.ready(HUB_SPEC)
    assert weights.view.parent == tmp_path / "home" / "views"
    assert names(weights.view) == FETCHED
    for name in FETCHED:
        assert (weights.view / name).read_bytes() == (weights.path / name).read_bytes()
        assert (weights.view / name).resolve() == (weights.path / name).resolve()


def test_what_others_put_beside_the_weights_is_not_in_it(store: Store) -> None:
    """Another tool may fetch the whole repository into the same snapshot."""
    weights = store.ready(HUB_SPEC)
    for name in ("modeling_tiny.py", "pytorch_model.bin", "extra.safetensors", "secret.json"):
        (weights.path / name).write_bytes(b"raise SystemExit")
    assert names(store.ready(HUB_SPEC).view) == FETCHED


def add_python(view: Path) -> None:
    (view / "sitecustomize.py").write_text("raise SystemExit")


def add_a_folder(view: Path) -> None:
    (view / "original").mkdir()
    (view / "original" / "x.bin").write_bytes(b"x")


def link_a_folder(view: Path) -> None:
    (view / "more").symlink_to("/usr")


def remove_a_link(view: Path) -> None:
    (view / "tokenizer.json").unlink()


def turn_a_link(view: Path) -> None:
    (view / "config.json").unlink()
    (view / "config.json").symlink_to("/etc/hostname")


def replace_a_link(view: Path) -> None:
    (view / "config.json").unlink()
    (view / "config.json").write_text("{}")


def break_all(view: Path) -> None:
    shutil.rmtree(view)
    view.symlink_to("/usr")


def become_a_file(view: Path) -> None:
    shutil.rmtree(view)
    view.write_text("x")


@pytest.mark.parametrize(
    "tamper",
    [add_python, add_a_folder, link_a_folder, remove_a_link, turn_a_link, replace_a_link,
     break_all, shutil.rmtree, become_a_file],
)  # fmt: skip
def test_it_is_made_anew_when_it_is_not_as_it_was_made(
    store: Store, tamper: Callable[[Path], None]
) -> None:
    view = store.ready(HUB_SPEC).view
    tamper(view)
    assert store.ready(HUB_SPEC).view == view
    assert names(view) == FETCHED and not view.is_symlink()
    assert (view / "config.json").read_bytes() == model_files()["config.json"]
    assert [path.name for path in view.parent.iterdir()] == [view.name], "no rests"


def test_it_is_left_alone_while_it_is_right(store: Store) -> None:
    view = store.ready(HUB_SPEC).view
    before = view.stat()
    assert store.ready(HUB_SPEC).view.stat() == before


def test_it_comes_and_goes_with_the_weights(store: Store, tmp_path: Path) -> None:
    store.ready(HUB_SPEC)
    store.remove("tiny")
    assert list((tmp_path / "home" / "views").iterdir()) == []
    assert [p.name for p in (tmp_path / "home" / "manifests").iterdir()] == [".locks"]


def test_rests_of_a_maker_that_was_killed(store: Store, tmp_path: Path) -> None:
    view = store.ready(HUB_SPEC).view
    for rest in (f".part--{view.name}", f".old--{view.name}"):
        (view.parent / rest).mkdir()
        (view.parent / rest / "x.py").write_text("x")
    shutil.rmtree(view)
    assert names(store.ready(HUB_SPEC).view) == FETCHED
    assert [path.name for path in view.parent.iterdir()] == [view.name]


@pytest.mark.parametrize("where", ["absolute", "relative"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_out_of_a_folder_is_refused(tmp_path: Path, name: str, where: str) -> None:
    root, outside = tmp_path / "mine", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    for file, data in model_files().items():
        if "/" not in file:
            (root / file).write_bytes(data)
    (root / name).rename(outside / name)
    target = outside / name if where == "absolute" else Path("..") / "outside" / name
    (root / name).symlink_to(target)
    with pytest.raises(UnsafeWeights) as caught:
        store_at(tmp_path).pull(spec(DirSource(root)))
    assert caught.value.file == name and "out of its folder" in caught.value.reason
    assert store_at(tmp_path).list() == ()


def test_a_link_that_leads_out_later_is_refused(store: Store, hub: FakeHub, tmp_path: Path) -> None:
    """The same bytes elsewhere: nobody guards that place."""
    weights = store.ready(HUB_SPEC)
    pointer = weights.path / "model.safetensors"
    elsewhere = tmp_path / "elsewhere"
    os.link(pointer.resolve(), elsewhere)
    pointer.unlink()
    pointer.symlink_to(elsewhere)
    for _ in range(2):
        with pytest.raises(UnsafeWeights) as caught:
            store.ready(HUB_SPEC)
        assert caught.value.file == "model.safetensors"
    hub.requests.clear()
    assert store.pull(HUB_SPEC).digest == weights.digest, "a pull sets it right"
    assert hub.asked_for("GET", "/cdn/") == []
    assert store.ready(HUB_SPEC).digest == weights.digest and elsewhere.exists()


def test_links_inside_a_folder_are_fine(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    (root / "parts").mkdir(parents=True)
    for file, data in model_files().items():
        if "/" not in file:
            (root / "parts" / file).write_bytes(data)
            (root / file).symlink_to(Path("parts") / file)
    weights = store_at(tmp_path).ready(spec(DirSource(root)))
    assert names(weights.view) == FETCHED


def test_a_snapshot_of_a_cache_is_a_folder_too(store: Store, tmp_path: Path) -> None:
    """`dir:` may name one; its links lead to the blobs of its own repository."""
    snapshot = store.pull(HUB_SPEC).path
    mine = spec(DirSource(snapshot), "mine")
    assert names(store.ready(mine).view) == FETCHED
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(UnsafeWeights):
        store_at(tmp_path / "other").pull(mine)


def test_the_same_config_is_read_from_both(store: Store) -> None:
    weights = store.ready(HUB_SPEC)
    assert store.config(weights) == json.loads((weights.view / "config.json").read_text())


def test_a_full_disk_leaves_no_half_view(small_disk: Path, hub: FakeHub) -> None:
    hub.repos[REPO]["config.json"] = json.dumps(
        {"architectures": ["Tiny"], "auto_map": {"AutoModel": "a.B"}, "note": "x" * 20_000}
    ).encode()
    store, model = store_at(small_disk, hub.endpoint), replace(HUB_SPEC, remote_code="unneeded")
    store.pull(model)
    (small_disk / "home" / "views").mkdir()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    with pytest.raises(DiskFull):
        store.ready(model)
    assert list((small_disk / "home" / "views").iterdir()) == []
    ballast.unlink()
    assert names(store.ready(model).view) == FETCHED


def test_many_ask_at_once(tmp_path: Path, hub: FakeHub) -> None:
    """Threads, each with a store of its own, as processes have: one fetch, one view."""
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(store_at(tmp_path, hub.endpoint).ready, HUB_SPEC) for _ in range(16)]
        views = {one.result().view for one in asked}
    [view] = views
    assert names(view) == FETCHED and len(hub.asked_for("GET", "/cdn/")) == 1
    assert [path.name for path in view.parent.iterdir()] == [view.name]
