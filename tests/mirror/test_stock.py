"""What is given: exactly the sealed files of intact weights, as they are now."""

import hashlib
import logging
import os
from dataclasses import replace

import pytest
from huggingface_hub.utils._validators import validate_repo_id

from serve.errors import WeightsDamaged
from serve.mirror.oid import git_blob_id
from serve.mirror.stock import Stock, commit_of, opened, repo_name
from serve.store.manifest import Damage
from tests.mirror.houses import COMMIT, House, settle

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 2000}


def test_a_hub_s_weights_are_given_under_the_hub_s_names(house: House) -> None:
    house.hold("org/m", FILES, asked="v1.0")
    repo = Stock(house.store).repos()["org/m"]
    for name in (None, "main", "v1.0", COMMIT):
        found = repo.find(name)
        assert found and (found.commit, set(found.files)) == (COMMIT, set(FILES))
    assert repo.find("v2") is None and repo.find("") is None and repo.find(COMMIT[:12]) is None


def test_the_newest_seal_decides_what_a_branch_is(house: House) -> None:
    house.hold("org/m", FILES, commit="a" * 40)
    house.hold("org/m", FILES, commit="b" * 40)
    house.hold("org/m", FILES, commit="c" * 40, asked="c" * 40)
    repo = Stock(house.store).repos()["org/m"]
    assert set(repo.revisions) == {"a" * 40, "b" * 40, "c" * 40}
    assert repo.branches == {"main": "b" * 40}


def test_two_entries_of_one_commit_add_up(house: House) -> None:
    first = house.hold("org/m", {"a.json": b"{}"})
    other = house.hold("other", {"b.json": b"{}"})
    house.write(replace(other, source=first.source))
    revision = Stock(house.store).repos()["org/m"].find(COMMIT)
    assert revision and set(revision.files) == {"a.json", "b.json"}


@pytest.mark.parametrize("kind", ["wheel", "modelscope", "dir", "bundle"])
def test_weights_from_elsewhere_are_given_under_our_own_name(house: House, kind: str) -> None:
    seal = house.hold("tiny", FILES, kind=kind)  # type: ignore[arg-type]
    stock = Stock(house.store)
    [(name, repo)] = stock.repos().items()
    assert name == "inhouse/tiny" and repo.branches == {"main": seal.digest[:40]}
    revision = repo.find(seal.digest[:40])
    assert revision is not None
    oids = {path: stock.oid(file) for path, file in revision.files.items()}
    weights = hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    assert oids == {"config.json": git_blob_id(b"{}"), "model.safetensors": weights}


@pytest.mark.parametrize(
    "name", ["qwen3:awq", "a b", "-x", "ü", "a--b", "x..y", "x.git", "n" * 97, ""]
)
def test_a_name_that_is_none_on_the_hub_becomes_one(house: House, name: str) -> None:
    seal = replace(house.hold("m", FILES, kind="dir"), name=name)
    validate_repo_id(repo_name(seal))
    assert repo_name(seal) != repo_name(replace(seal, name=name + "."))
    assert len(commit_of(seal)) == 40


def test_what_comes_and_goes_is_seen_at_the_next_look(house: House) -> None:
    stock = Stock(house.store)
    assert not stock.repos()
    seal = house.hold("org/m", FILES)
    assert set(stock.repos()) == {"org/m"}
    settle(house)
    assert set(stock.repos()) == {"org/m"}
    house.write(replace(seal, damage=Damage("config.json", "x", "y", 1.0)))
    assert not stock.repos()
    house.write(seal)
    assert stock.repos()
    settle(house)
    house.forget(seal)
    assert not stock.repos()


def test_seals_are_read_only_when_they_changed(house: House) -> None:
    house.hold("org/m", FILES)
    reads = []

    class Counting:
        def manifests(self):  # type: ignore[no-untyped-def]
            reads.append(1)
            return house.store.manifests()

        def stamp(self) -> int:
            return house.store.stamp()

    stock = Stock(Counting())
    settle(house)
    for _ in range(5):
        stock.repos()
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("patterns", "given"),
    [
        ((), {"org/m", "other/m", "inhouse/own"}),
        (("org/*",), {"org/m"}),
        (("ORG/M", "inhouse/*"), {"org/m", "inhouse/own"}),
        (("m",), set()),
        (("",), set()),
    ],
)
def test_only_allowed_repositories_are_given(
    house: House, patterns: tuple[str, ...], given: set[str]
) -> None:
    house.hold("org/m", FILES)
    house.hold("other/m", FILES)
    house.hold("own", FILES, kind="wheel")
    assert set(Stock(house.store, patterns).repos()) == given


@pytest.mark.parametrize("harm", ["flip", "append", "cut", "remove", "pipe", "folder", "swap"])
def test_a_changed_file_is_not_opened(
    house: House, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    seal = house.hold("org/m", FILES)
    stock = Stock(house.store)
    revision = stock.repos()["org/m"].find("main")
    assert revision and stock.is_intact(revision)
    place = seal.path / "config.json"
    match harm:
        case "flip":
            place.write_bytes(b"[]")
        case "append":
            place.write_bytes(b"{} ")
        case "cut":
            os.truncate(place, 1)
        case "swap":  # same size and time, but another file
            other = place.with_name("other")
            other.write_bytes(b"[]")
            os.utime(other, ns=(0, seal.files[0].mtime_ns))
            other.replace(place)
        case _:
            place.unlink()
    if harm == "pipe":
        os.mkfifo(place)
    elif harm == "folder":
        place.mkdir()
    with caplog.at_level(logging.ERROR), pytest.raises(WeightsDamaged):
        opened(revision.files["config.json"])
    assert "repo=org/m file=config.json" in caplog.text
    assert not stock.is_intact(revision)
    os.close(opened(revision.files["model.safetensors"]))


def test_a_lie_about_a_small_file_is_found_when_its_name_is_made(house: House) -> None:
    seal = house.hold("own", FILES, kind="dir")
    lie = replace(seal.files[0], sha256="0" * 64)
    stock = Stock(house.store)
    revision = stock.repos()["inhouse/own"].find(None)
    assert revision is not None
    with pytest.raises(WeightsDamaged):
        stock.oid(replace(revision.files["config.json"], record=lie))
