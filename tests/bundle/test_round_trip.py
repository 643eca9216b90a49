"""A model crosses the gap and is what it was, wherever it came from."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from serve.bundle import Trust, inspect
from serve.catalog import load_catalog
from serve.errors import (
    BadFile,
    LockMismatch,
    NotAllowed,
    NotPulled,
    SettingsError,
    WeightsDamaged,
)
from serve.lock import Lock, LockedFile, LockedModel
from serve.policy import Policy
from serve.sources import BundleSource, HubSource, ModelScopeSource
from tests.bundle.forgery import with_manifest
from tests.bundle.machines import (
    HUB_SPEC,
    REPO,
    WHEEL_SPEC,
    Machine,
    contents_of,
    dir_spec,
    members,
)
from tests.fakes.fake_hub import FakeHub
from tests.store.models import FETCHED, Recorder


def test_weights_of_the_hub_lie_there_as_if_they_were_pulled(
    here: Machine, there: Machine, bundle: Path, tmp_path: Path
) -> None:
    taken = there.take(bundle)
    mine, theirs = here.store.manifest(HUB_SPEC), there.store.manifest(HUB_SPEC)
    assert taken.weights == (there.store.weights(HUB_SPEC),)
    same = ("name", "kind", "source", "asked", "revision", "digest", "license", "is_chosen")
    assert [getattr(mine, key) for key in same] == [getattr(theirs, key) for key in same]
    assert theirs.via == "bundle x.inhouse" and mine.via == ""
    assert contents_of(theirs.path, FETCHED) == contents_of(mine.path, FETCHED)
    assert tree(tmp_path / "there" / "hf") == tree(tmp_path / "here" / "hf")
    assert there.holds(HUB_SPEC) and there.staged() == []


def tree(folder: Path) -> set[tuple[str, str]]:
    """Files and links of a Hub client's cache, without the locks."""
    return {
        (str(path.relative_to(folder)), str(path.readlink()) if path.is_symlink() else "file")
        for path in folder.rglob("*")
        if not path.is_dir() and ".locks" not in path.parts
    }


def test_the_real_client_finds_what_was_imported(there: Machine, bundle: Path) -> None:
    from huggingface_hub import snapshot_download

    there.take(bundle)
    found = snapshot_download(REPO, cache_dir=there.folder / "hf" / "hub", local_files_only=True)
    assert Path(found) == there.store.weights(HUB_SPEC).path


def test_the_seal_is_fresh_though_the_staging_let_go(there: Machine, bundle: Path) -> None:
    """Hard links that go change a file's ctime; the next load must not need a full check for it."""
    there.take(bundle)
    seen = there.seen.labels.copy()
    there.store.ready(HUB_SPEC, there.seen)
    assert there.seen.labels == seen


def test_weights_of_a_wheel_go_to_the_shelf(tmp_path: Path, stick: Path) -> None:
    here, there = (Machine(tmp_path / name, (WHEEL_SPEC,)) for name in ("here", "there"))
    here.store.pull(WHEEL_SPEC)
    [bundle] = here.export(stick / "w.inhouse").files
    [weights] = there.take(bundle).weights
    assert weights.path.parent == tmp_path / "there" / "home" / "weights"
    found = there.store.manifest(WHEEL_SPEC)
    assert (found.kind, found.is_chosen, found.via) == ("wheel", True, "bundle w.inhouse")
    assert there.holds(WHEEL_SPEC) and there.staged() == []


def test_a_folder_arrives_under_its_name(tmp_path: Path, stick: Path) -> None:
    model = dir_spec(tmp_path / "mine")
    here, there = (Machine(tmp_path / name, (model,)) for name in ("here", "there"))
    here.store.pull(model)
    [bundle] = here.export(stick / "d.inhouse").files
    [weights] = there.take(bundle).weights
    assert weights.path.parent == tmp_path / "there" / "home" / "weights"
    assert there.holds(model)
    assert there.store.remove("tiny") == weights.total_bytes and not weights.path.exists()


def test_what_was_imported_can_be_exported_again(
    here: Machine, there: Machine, bundle: Path, stick: Path
) -> None:
    there.take(bundle)
    again = there.export(stick / "again.inhouse").files[0]
    assert again.read_bytes() == bundle.read_bytes()


def test_equal_orders_give_equal_bytes(here: Machine, bundle: Path, stick: Path) -> None:
    [again] = here.export(stick / "z.inhouse").files
    assert again.read_bytes() == bundle.read_bytes()


def test_an_ordinary_tar_reads_it(here: Machine, bundle: Path) -> None:
    found = members(bundle)
    assert list(found)[:2] == ["manifest.json", "part.json"]
    pieces = b"".join(content for name, content in found.items() if name.startswith("pieces/"))
    weights = here.store.manifest(HUB_SPEC)
    for record in weights.files:
        assert (weights.path / record.path).read_bytes() in pieces


def test_equal_files_of_several_models_are_stored_once(tmp_path: Path, stick: Path) -> None:
    one, two = dir_spec(tmp_path / "one", "one"), dir_spec(tmp_path / "two", "two")
    here = Machine(tmp_path / "here", (one, two))
    there = Machine(tmp_path / "there", (one, two))
    for model in (one, two):
        here.store.pull(model)
    [single] = here.export(stick / "1.inhouse", specs=(one,)).files
    [both] = here.export(stick / "2.inhouse").files
    assert both.stat().st_size < single.stat().st_size + 4096
    there.take(both)
    assert there.holds(one) and there.holds(two) and there.staged() == []


def test_parts_are_small_enough_and_come_in_any_order(
    there: Machine, parts: tuple[Path, ...]
) -> None:
    assert len(parts) > 2 and all(part.stat().st_size < 24_000 for part in parts)
    assert [part.name for part in parts][:2] == ["y.inhouse.001", "y.inhouse.002"]
    for part in parts[:0:-1]:
        with pytest.raises(BadFile, match="not come yet; what came is kept"):
            there.take(part)
        assert not there.holds(HUB_SPEC)
    assert there.take(parts[0]).weights[0].name == "tiny"
    assert there.holds(HUB_SPEC) and there.staged() == []


def test_missing_parts_are_named(there: Machine, parts: tuple[Path, ...]) -> None:
    with pytest.raises(BadFile) as told:
        there.take(parts[0], *parts[2:])
    assert told.value.problem == f"part 2 of {len(parts)} has not come yet; what came is kept"
    with pytest.raises(BadFile) as told:
        there.take(parts[0])
    assert told.value.problem.startswith(f"part 2 of {len(parts)} has not come yet")


def test_what_came_is_not_read_again(there: Machine, parts: tuple[Path, ...]) -> None:
    with pytest.raises(BadFile):
        there.take(*parts[:-1])
    there.seen.totals.clear()
    there.take(*parts)
    last = sum(len(c) for name, c in members(parts[-1]).items() if name.startswith("pieces/"))
    assert there.seen.totals[0] == last


def test_a_model_is_there_as_soon_as_its_own_pieces_are(tmp_path: Path, stick: Path) -> None:
    one = dir_spec(tmp_path / "one", "one", b"1" * 30_000)
    two = dir_spec(tmp_path / "two", "two", b"2" * 30_000)
    here = Machine(tmp_path / "here", (one, two))
    there = Machine(tmp_path / "there", (one, two))
    for model in (one, two):
        here.store.pull(model)
    parts = here.export(stick / "2.inhouse", max_bytes=24_000).files
    with pytest.raises(BadFile, match="has not come yet"):
        there.take(*parts[:-1])
    assert there.holds(one) and not there.holds(two)
    there.take(parts[-1])
    assert there.holds(two) and there.holds(one) and there.staged() == []


def test_one_model_of_several(tmp_path: Path, stick: Path) -> None:
    one = dir_spec(tmp_path / "one", "one", b"1" * 30_000)
    two = dir_spec(tmp_path / "two", "two", b"2" * 30_000)
    here, there = (Machine(tmp_path / name, (one, two)) for name in ("here", "there"))
    for model in (one, two):
        here.store.pull(model)
    [bundle] = here.export(stick / "2.inhouse").files
    there.take(bundle, only="two")
    assert there.holds(two) and not there.holds(one)
    with pytest.raises(BadFile, match="does not hold three, but: one, two"):
        there.take(bundle, only="three")


def test_importing_twice_does_nothing(there: Machine, bundle: Path) -> None:
    first = there.take(bundle)
    sealed_at = there.store.manifest(HUB_SPEC).sealed_at
    there.seen.labels.clear()
    assert there.take(bundle).weights == first.weights
    assert there.seen.labels == [] and there.store.manifest(HUB_SPEC).sealed_at == sealed_at


def test_what_the_cache_has_already_is_used(here: Machine, bundle: Path) -> None:
    """The seal is gone, the files are in the Hub client's cache still."""
    blobs = {p.name: p.stat().st_ino for p in (here.folder / "hf").rglob("blobs/*")}
    for seal in (here.folder / "home" / "manifests").glob("*.json"):
        seal.unlink()
    here.take(bundle)
    assert here.holds(HUB_SPEC)
    assert {p.name: p.stat().st_ino for p in (here.folder / "hf").rglob("blobs/*")} == blobs


def test_pull_takes_a_bundle_as_its_source(there: Machine, bundle: Path) -> None:
    chosen = HUB_SPEC.with_source(BundleSource(bundle))
    first = there.store.pull(chosen)
    assert there.store.pull(chosen) == first
    assert there.holds(HUB_SPEC) and first.via == "bundle x.inhouse"
    assert there.store.ready(HUB_SPEC).digest == first.digest


def test_pull_takes_all_parts_that_lie_together(there: Machine, parts: tuple[Path, ...]) -> None:
    there.store.pull(HUB_SPEC.with_source(BundleSource(parts[0])))
    assert there.holds(HUB_SPEC)


def test_a_catalog_entry_may_name_a_bundle(there: Machine, bundle: Path) -> None:
    entry = replace(HUB_SPEC, source=BundleSource(bundle))
    there.specs = (entry,)
    assert there.store.ready(entry).name == "tiny"
    bundle.unlink()  # the stick is gone, the weights stay
    assert there.store.pull(entry).via == "bundle x.inhouse"
    assert there.holds(entry)


def test_a_model_that_no_catalog_knows_comes_with_an_entry(
    there: Machine, bundle: Path, tmp_path: Path
) -> None:
    there.specs = ()
    there.take(bundle)
    [note] = [note for note in there.seen.notes if "no catalog here knows tiny" in note]
    own = tmp_path / "own.yaml"
    own.write_text(note)
    entry = load_catalog(own).find("tiny")
    assert entry.source == HubSource(REPO) and entry.license.name == "mit"
    assert entry.context_tokens == 128 and entry.engine_args == ()
    assert there.holds(entry)


def test_a_refused_model_says_which_rule(here: Machine, there: Machine, bundle: Path) -> None:
    there.policy = Policy(sources=("hf",))
    with pytest.raises(NotAllowed) as told:
        there.take(bundle)
    assert told.value.rule == "policy.sources" and told.value.value == "bundle"
    there.policy = Policy(licenses=("Apache-2.0",))
    with pytest.raises(NotAllowed, match="policy.licenses"):
        there.take(bundle)
    assert there.staged() == [] and not there.holds(HUB_SPEC)
    here.policy = Policy(repos=("other/*",))
    with pytest.raises(NotAllowed, match=r"policy\.repos"):
        here.export(bundle.with_name("n.inhouse"))


def locked(machine: Machine, **change: object) -> Lock:
    held = machine.store.manifest(HUB_SPEC)
    files = tuple(LockedFile(file.path, file.size, file.sha256) for file in held.files)
    model = LockedModel(
        "tiny", held.kind, held.source, held.revision, held.license, HUB_SPEC.digest,
        held.digest, files,
    )  # fmt: skip
    return Lock((replace(model, **change),))  # type: ignore[arg-type]


def test_a_lock_takes_what_it_names_and_nothing_else(
    here: Machine, there: Machine, bundle: Path
) -> None:
    there.lock = locked(here, revision="0" * 40)
    with pytest.raises(LockMismatch, match="revision"):
        there.take(bundle)
    assert there.staged() == []
    there.lock = locked(here)
    there.take(bundle)
    assert there.holds(HUB_SPEC)


def test_a_damaged_file_stops_the_export(here: Machine, stick: Path) -> None:
    file = here.store.manifest(HUB_SPEC).path / "model.safetensors"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    blob = file.resolve()
    blob.write_bytes(content)
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises((WeightsDamaged, NotPulled)):
        here.export(stick / "bad.inhouse")
    assert list(stick.iterdir()) == []


def test_a_file_that_is_damaged_while_it_is_read(here: Machine, stick: Path) -> None:
    blob = (here.store.manifest(HUB_SPEC).path / "model.safetensors").resolve()

    def damage(n_bytes: int) -> None:
        with blob.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\xff")

    here.seen.on_advance = damage
    with pytest.raises(WeightsDamaged) as told:
        here.export(stick / "bad.inhouse", max_bytes=24_000)
    assert told.value.file == "model.safetensors"
    assert list(stick.iterdir()) == []


def test_what_is_not_here_cannot_be_exported(there: Machine, stick: Path) -> None:
    with pytest.raises(NotPulled):
        there.export(stick / "x.inhouse")
    assert list(stick.iterdir()) == []


def test_nothing_is_overwritten(here: Machine, bundle: Path) -> None:
    before = bundle.read_bytes()
    with pytest.raises(SettingsError, match="is there already"):
        here.export(bundle)
    assert bundle.read_bytes() == before


def test_parts_that_are_too_small_for_a_piece(here: Machine, stick: Path) -> None:
    with pytest.raises(SettingsError, match="too small"):
        here.export(stick / "x.inhouse", max_bytes=4000)
    assert list(stick.iterdir()) == []


def test_what_a_killed_export_left_is_swept(here: Machine, stick: Path) -> None:
    for name in (".x.inhouse.part", ".x.inhouse.007.part"):
        (stick / name).write_bytes(b"half")
    (stick / ".y.inhouse.part").write_bytes(b"somebody else's")
    here.export(stick / "x.inhouse")
    assert sorted(path.name for path in stick.iterdir()) == [".y.inhouse.part", "x.inhouse"]


def test_the_hub_is_never_asked(there: Machine, hub: FakeHub, bundle: Path) -> None:
    hub.requests.clear()
    there.endpoint = hub.endpoint
    there.take(bundle)
    there.store.ready(HUB_SPEC)
    assert hub.requests == []


def test_weights_of_modelscope_go_to_the_shelf(tmp_path: Path, stick: Path) -> None:
    """As they would be sealed by a pull from there."""
    mine = dir_spec(tmp_path / "mine")
    here = Machine(tmp_path / "here", (mine,))
    here.store.pull(mine)
    [bundle] = here.export(stick / "m.inhouse").files
    theirs = {"kind": "modelscope", "source": "modelscope:org/tiny", "asked": "master"}
    with_manifest(
        bundle, lambda record: record["models"][0].update(theirs | {"revision": "0" * 40})
    )
    entry = replace(mine, source=ModelScopeSource("org/tiny"))
    there = Machine(tmp_path / "there", (entry,))
    [weights] = there.take(bundle).weights
    assert (weights.kind, weights.source) == ("modelscope", "modelscope:org/tiny")
    assert weights.path.parent == tmp_path / "there" / "home" / "weights" and there.holds(entry)


def test_an_entry_for_what_came_from_a_folder(tmp_path: Path, stick: Path) -> None:
    mine = dir_spec(tmp_path / "mine")
    here, there = Machine(tmp_path / "here", (mine,)), Machine(tmp_path / "there")
    here.store.pull(mine)
    [bundle] = here.export(stick / "d.inhouse").files
    there.take(bundle)
    own = tmp_path / "own.yaml"
    own.write_text(there.seen.notes[0])
    entry = load_catalog(own).find("tiny")
    assert entry.source == BundleSource(bundle)
    there.specs = (entry,)
    assert there.store.ready(entry).name == "tiny"


def test_both_homes_are_untouched_by_verify(bundle: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert inspect([bundle], Trust(), Recorder()).is_good
    assert sorted(tmp_path.rglob("*")) == before
