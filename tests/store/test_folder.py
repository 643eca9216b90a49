"""A local folder as a source: used where it lies, hashed once."""

import os
from pathlib import Path

import pytest

from serve.errors import NotPulled, RepoNotFound, UnsafeWeights
from serve.sources import DirSource
from tests.store.models import FETCHED, Recorder, model_files, safetensors, spec, store_at


def folder_at(tmp_path: Path) -> Path:
    root = tmp_path / "my model"
    for name, data in model_files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_a_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    root = folder_at(tmp_path)
    before = sorted(root.rglob("*"))
    store, recorder = store_at(tmp_path), Recorder()
    weights = store.pull(spec(DirSource(root)), recorder)
    assert weights.path == root
    assert weights.total_bytes == sum((root / name).stat().st_size for name in FETCHED)
    assert recorder.advanced == weights.total_bytes
    assert weights.revision == weights.digest
    assert sorted(root.rglob("*")) == before


def test_it_is_hashed_once(tmp_path: Path) -> None:
    root, store = folder_at(tmp_path), store_at(tmp_path)
    weights = store.pull(spec(DirSource(root)))
    recorder = Recorder()
    assert store.pull(spec(DirSource(root)), recorder) == weights
    assert recorder.labels == []


def test_only_what_was_written_to_is_hashed_again(tmp_path: Path) -> None:
    root, store = folder_at(tmp_path), store_at(tmp_path)
    old = store.pull(spec(DirSource(root)))
    config = root / "config.json"
    times = config.stat().st_atime_ns, config.stat().st_mtime_ns
    config.write_bytes(config.read_bytes().replace(b"Llama", b"Qwen2"))
    os.utime(config, ns=times)  # a time that was set back is seen too
    assert store.pull(spec(DirSource(root))).digest != old.digest


def test_a_changed_folder_is_another_revision(tmp_path: Path) -> None:
    root, store = folder_at(tmp_path), store_at(tmp_path)
    old = store.pull(spec(DirSource(root)))
    (root / "model.safetensors").write_bytes(safetensors({"w": b"new" * 100}))
    with pytest.raises(NotPulled):
        store.weights(spec(DirSource(root)))
    new = store.pull(spec(DirSource(root)))
    assert new.digest != old.digest
    assert [held.digest for held in store.list()] == [new.digest]


def test_a_name_means_one_folder(tmp_path: Path) -> None:
    root, store = folder_at(tmp_path), store_at(tmp_path)
    store.pull(spec(DirSource(root)))
    with pytest.raises(NotPulled):
        store.weights(spec(DirSource(tmp_path)))


def test_remove_forgets_and_keeps_the_files(tmp_path: Path) -> None:
    root, store = folder_at(tmp_path), store_at(tmp_path)
    weights = store.pull(spec(DirSource(root)))
    assert store.remove("tiny") == 0
    assert store.list() == () and (weights.path / "model.safetensors").exists()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RepoNotFound):
        store_at(tmp_path).pull(spec(DirSource(tmp_path / "gone")))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("config.json", None),
        ("config.json", b"nonsense"),
        ("tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": ["a.B", null]}}'),
        ("model.safetensors", None),
        ("model.safetensors", b"nonsense"),
    ],
)
def test_a_folder_that_is_no_model(tmp_path: Path, name: str, data: bytes | None) -> None:
    root = folder_at(tmp_path)
    (root / name).unlink() if data is None else (root / name).write_bytes(data)
    with pytest.raises(UnsafeWeights):
        store_at(tmp_path).pull(spec(DirSource(root)))
    assert store_at(tmp_path).list() == ()
