"""What arrives from elsewhere: the staging, and the way from it to the place of the weights."""

import hashlib
from pathlib import Path

import pytest

from serve.errors import HashMismatch, UnsafeWeights
from serve.sources import DirSource
from serve.store import admission
from serve.store.admission import Homes
from serve.store.manifest import FileRecord, Manifest, changed, digest_of
from serve.store.staging import Staging
from tests.store.models import Recorder, model_files, spec

NAMES = ("config.json", "tokenizer.json", "model.safetensors")
SPEC = spec(DirSource(Path("/elsewhere")))


def arriving(files: dict[str, bytes]) -> Manifest:
    records = tuple(
        FileRecord(name, len(content), hashlib.sha256(content).hexdigest(), 0)
        for name, content in files.items()
    )
    return Manifest(
        2, "tiny", "bundle", "/elsewhere", "", "0" * 64, Path(), records, 0.0, digest_of(records)
    )


def staged(folder: Path, files: dict[str, bytes]) -> Staging:
    staging = Staging(folder)
    for content in files.values():
        staging.put(hashlib.sha256(content).hexdigest(), 0, 0, content)
    return staging


@pytest.fixture
def files() -> dict[str, bytes]:
    return {name: content for name, content in model_files().items() if name in NAMES}


def homes(tmp_path: Path) -> Homes:
    return Homes(tmp_path / "weights", tmp_path / "hf")


def test_the_seal_holds_before_and_after_the_staging_lets_go(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    """Links that go change a file's ctime, and a kill may come in between."""
    staging, told = staged(tmp_path / "imports", files), arriving(files)
    fetched = admission.admit(SPEC, told, staging, homes(tmp_path), Recorder())
    made = admission.sealed(SPEC, told, fetched)
    assert changed(made) == ()
    settled = admission.settled(made, staging)
    assert changed(made) == () and changed(settled) == ()
    assert all(record.ctime_ns for record in settled.files)
    assert not any(staging.pieces(record.sha256) for record in told.files)


def test_what_others_need_is_copied_and_stays(tmp_path: Path, files: dict[str, bytes]) -> None:
    staging, told = staged(tmp_path / "imports", files), arriving(files)
    shared = told.files[0].sha256
    staging.hold([shared])
    fetched = admission.admit(SPEC, told, staging, homes(tmp_path), Recorder())
    settled = admission.settled(admission.sealed(SPEC, told, fetched), staging)
    assert staging.pieces(shared) == {0}
    staging.discard(shared)
    assert changed(settled) == ()


def test_only_the_wrong_content_is_discarded(tmp_path: Path, files: dict[str, bytes]) -> None:
    staging, told = staged(tmp_path / "imports", files), arriving(files)
    wrong = told.files[1].sha256
    staging.path(wrong).write_bytes(b"x" * told.files[1].size)
    with pytest.raises(HashMismatch):
        admission.admit(SPEC, told, staging, homes(tmp_path), Recorder())
    assert {bool(staging.pieces(r.sha256)) for r in told.files if r.sha256 != wrong} == {True}
    assert staging.pieces(wrong) == set()
    assert list((tmp_path / "weights").iterdir()) == []


@pytest.mark.parametrize("path", ["evil.py", "../x.json", "a/config.json", "pytorch_model.bin"])
def test_what_we_do_not_load_does_not_arrive(files: dict[str, bytes], path: str) -> None:
    with pytest.raises(UnsafeWeights):
        admission.check(SPEC, arriving(files | {path: b"{}"}))


def test_a_list_of_files_that_is_not_its_digest(files: dict[str, bytes]) -> None:
    told = arriving(files)
    other = Manifest(
        2, "tiny", "bundle", "/elsewhere", "", "0" * 64, Path(), told.files[1:], 0.0, told.digest
    )
    with pytest.raises(HashMismatch):
        admission.check(SPEC, other)


def test_settings_without_end_are_not_read(files: dict[str, bytes]) -> None:
    told = arriving(files)
    huge = FileRecord("tokenizer_config.json", 2**33, "0" * 64, 0)
    records = (*told.files, huge)
    other = Manifest(
        2, "tiny", "bundle", "/elsewhere", "", "0" * 64, Path(), records, 0.0, digest_of(records)
    )
    with pytest.raises(UnsafeWeights, match="too large"):
        admission.check(SPEC, other)


def test_pieces_come_in_any_order_and_a_torn_record_is_none(tmp_path: Path) -> None:
    staging, name = Staging(tmp_path / "imports"), "a" * 64
    staging.put(name, 2, 8, b"cccc")
    staging.put(name, 0, 0, b"aaaa")
    assert staging.pieces(name) == {0, 2}
    journal = tmp_path / "imports" / f"{name}.pieces"
    with journal.open("ab") as file:
        file.write(b"0000")
    assert staging.pieces(name) == {0, 2}
    staging.put(name, 1, 4, b"bbbb")
    assert staging.pieces(name) == {0, 1, 2}
    assert staging.path(name).read_bytes() == b"aaaabbbbcccc"
