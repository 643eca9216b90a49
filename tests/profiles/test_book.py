"""The book of profiles: what is found, kept, shared and refused."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import BadFile, NotWritable
from serve.profiles import Profile, ProfileBook, ProfileKey

GIB = 2**30
KEY = ProfileKey(
    weights="aa" * 32, device="NVIDIA H100 80GB HBM3 81079MiB", engine_version="0.32",
    tensor_parallel=2, pipeline_parallel=1, data_parallel=1, max_num_batched_tokens=8192,
    max_num_seqs=1024, kv_dtype="auto", is_eager=False,
)  # fmt: skip
PROFILE = Profile(
    key=KEY, measured_at=1_000.0, model="qwen3-8b", weights_bytes=8 * GIB,
    activation_bytes=2 * GIB, graph_bytes=GIB, other_bytes=GIB, budget_bytes=72 * GIB,
    available_kv_bytes=60 * GIB, kv_blocks=27_306, block_tokens=16, kv_tokens=436_896,
    ready_after_s=61.5,
)  # fmt: skip


@pytest.fixture
def book(tmp_path: Path) -> ProfileBook:
    return ProfileBook(tmp_path / "profiles")


def later(seconds: float, **changes: Any) -> Profile:
    return replace(PROFILE, measured_at=PROFILE.measured_at + seconds, **changes)


def test_a_book_that_is_not_there_is_empty(book: ProfileBook, tmp_path: Path) -> None:
    assert book.find(KEY) is None and book.all() == ()
    assert not (tmp_path / "profiles").exists()


def test_what_was_recorded_is_found_under_the_very_same_key(book: ProfileBook) -> None:
    book.record(PROFILE)
    assert book.find(KEY) == PROFILE
    for change in (
        {"weights": "bb" * 32}, {"device": "NVIDIA H100 80GB HBM3 95830MiB"}, {"more": "00"},
        {"engine_version": "0.33"}, {"tensor_parallel": 1}, {"pipeline_parallel": 2},
        {"data_parallel": 2}, {"max_num_batched_tokens": 2048}, {"max_num_seqs": 256},
        {"kv_dtype": "fp8"}, {"is_eager": True},
    ):  # fmt: skip
        assert book.find(replace(KEY, **change)) is None


def test_the_newest_wins(book: ProfileBook) -> None:
    newer = later(1, available_kv_bytes=59 * GIB)
    book.record(newer)
    book.record(PROFILE)
    assert book.find(KEY) == newer
    assert book.all() == (newer, PROFILE)


def test_an_engine_that_was_told_its_cache_does_not_hide_what_one_before_it_measured(
    book: ProfileBook,
) -> None:
    told = [later(n, available_kv_bytes=None) for n in range(1, 20)]
    for profile in (PROFILE, *told):
        book.record(profile)
    assert book.find(KEY) == PROFILE
    assert len(book.all()) == 8 and book.all()[0] == told[-1]


def test_a_start_that_failed_counts_where_none_went_well(book: ProfileBook) -> None:
    failed = later(5, outcome="failed", ready_after_s=None, available_kv_bytes=-3 * GIB)
    mute = later(6, outcome="failed", ready_after_s=None, available_kv_bytes=None)
    book.record(failed)
    book.record(mute)
    assert book.find(KEY) == failed
    book.record(PROFILE)
    assert book.find(KEY) == PROFILE


def test_an_export_makes_the_same_book_elsewhere(book: ProfileBook, tmp_path: Path) -> None:
    other = replace(PROFILE, key=replace(KEY, kv_dtype="fp8"))
    for profile in (PROFILE, later(1), other):
        book.record(profile)
    assert book.export_to(tmp_path / "shared.json") == 3
    there = ProfileBook(tmp_path / "there")
    there.record(PROFILE)
    assert there.import_from(tmp_path / "shared.json") == 2
    assert there.import_from(tmp_path / "shared.json") == 0
    assert set(there.all()) == set(book.all())


def test_what_is_forgotten_is_gone(book: ProfileBook) -> None:
    other = replace(KEY, kv_dtype="fp8")
    book.record(PROFILE)
    book.record(replace(PROFILE, key=other))
    assert book.remove([KEY, replace(KEY, more="never")]) == 1
    assert [profile.key for profile in book.all()] == [other]


def test_a_damaged_file_counts_as_not_there_and_is_written_anew(
    book: ProfileBook, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book.record(PROFILE)
    (file,) = (tmp_path / "profiles").glob("*.json")
    file.write_text(file.read_text()[:-20])
    assert book.find(KEY) is None and book.all() == ()
    assert "is not JSON" in caplog.text
    book.record(later(1))
    assert book.find(KEY) == later(1)


def test_a_file_under_another_keys_name_is_not_believed(book: ProfileBook, tmp_path: Path) -> None:
    book.record(PROFILE)
    (file,) = (tmp_path / "profiles").glob("*.json")
    book.record(replace(PROFILE, key=replace(KEY, kv_dtype="fp8")))
    (other,) = set((tmp_path / "profiles").glob("*.json")) - {file}
    other.write_bytes(file.read_bytes())
    assert book.find(replace(KEY, kv_dtype="fp8")) is None


def test_many_writers_lose_nothing(book: ProfileBook, tmp_path: Path) -> None:
    profiles = [later(n) for n in range(8)]
    writers = [
        threading.Thread(target=ProfileBook(tmp_path / "profiles").record, args=(profile,))
        for profile in profiles
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(book.all()) == set(profiles)


def test_a_file_in_the_place_of_the_folder_is_told(book: ProfileBook, tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("")
    with pytest.raises(NotWritable):
        book.record(PROFILE)


def shared(tmp_path: Path, **changes: Any) -> Path:
    """An export with one profile, in which something is different; `key__x` is the key's x."""
    book, file = ProfileBook(tmp_path / "source"), tmp_path / "shared.json"
    book.record(PROFILE)
    book.export_to(file)
    record = json.loads(file.read_text())
    for name, value in changes.items():
        place = record["profiles"][0]
        *above, last = name.split("__")
        for step in above:
            place = place[step]
        if value is Ellipsis:
            del place[last]
        else:
            place[last] = value
    file.write_text(json.dumps(record))
    return file


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"unknown": 1}, "profiles.0.unknown: is unknown here"),
        ({"key__unknown": 1}, "profiles.0.key.unknown: is unknown here"),
        ({"weights_bytes": ...}, "profiles.0.weights_bytes: is missing"),
        ({"key__device": ...}, "profiles.0.key.device: is missing"),
        ({"key__device": ""}, "profiles.0.key.device"),
        ({"key__device": "x" * 301}, "profiles.0.key.device"),
        ({"key__tensor_parallel": 0}, "profiles.0.key.tensor_parallel"),
        ({"key__tensor_parallel": True}, "profiles.0.key.tensor_parallel"),
        ({"key__is_eager": 1}, "profiles.0.key.is_eager"),
        ({"weights_bytes": -1}, "profiles.0.weights_bytes"),
        ({"weights_bytes": 2**50 + 1}, "profiles.0.weights_bytes"),
        ({"weights_bytes": "8 GiB"}, "profiles.0.weights_bytes"),
        ({"weights_bytes": 1.5}, "profiles.0.weights_bytes"),
        ({"available_kv_bytes": -(2**51)}, "profiles.0.available_kv_bytes"),
        ({"outcome": "maybe"}, "profiles.0.outcome"),
        ({"measured_at": float("nan")}, "profiles.0.measured_at"),
        ({"measured_at": 4e12}, "profiles.0.measured_at: lies in the future"),
    ],
)
def test_an_import_refuses_what_is_no_profile_and_takes_nothing(
    book: ProfileBook, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadFile) as refused:
        book.import_from(shared(tmp_path, **changes))
    assert refused.value.problem.startswith(problem)
    assert book.all() == ()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not an object"),
        (b"{}", "format: is missing"),
        (b'{"format": 2, "profiles": []}', "is of a format that is unknown here: 2"),
        (b'{"format": 1}', "profiles: is missing"),
        (b'{"format": 1, "profiles": {}}', "profiles: must be a list: {}"),
        (b'{"format": 1, "profiles": [7]}', "profiles.0: is not an object"),
        (b'{"format": true, "profiles": []}', "format: must be 1: True"),
        (b" " * (16 * 2**20 + 1), "is larger than"),
    ],
)
def test_an_import_refuses_what_is_no_file_of_profiles(
    book: ProfileBook, tmp_path: Path, content: bytes, problem: str
) -> None:
    file = tmp_path / "shared.json"
    file.write_bytes(content)
    with pytest.raises(BadFile) as refused:
        book.import_from(file)
    assert refused.value.problem.startswith(problem) and refused.value.path == str(file)


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_an_import_of_no_file_is_refused(book: ProfileBook, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadFile):
        book.import_from(tmp_path / name)


@given(st.binary(max_size=300))
def test_any_bytes_are_profiles_or_a_bad_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "shared.json").write_bytes(content)
    with pytest.raises(BadFile):
        ProfileBook(folder).import_from(folder / "shared.json")


def test_what_an_engine_is_told_besides_the_plan_is_part_of_its_key() -> None:
    assert KEY.told((), ()) == KEY
    one, two = KEY.told(("--enable-lora",), ()), KEY.told((), (("enable-lora", True),))
    assert len({KEY, one, two}) == 3
    assert KEY.told(("--enable-lora",), ()) == one
