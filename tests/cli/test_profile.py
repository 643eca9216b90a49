"""`inhouse profile`: what was measured is listed, shared and forgotten."""

import json
from pathlib import Path

import pytest

from serve.profiles import ProfileBook
from tests.cli.conftest import House, Inhouse
from tests.profiles.test_book import KEY, PROFILE, later


@pytest.fixture
def book(home: Path) -> ProfileBook:
    """Two launches of one model and one of another."""
    book = ProfileBook(home / "profiles")
    book.record(PROFILE)
    book.record(later(60, available_kv_bytes=None))
    book.record(later(-60, model="yi-1.5-6b", key=KEY.told(("--enable-lora",))))
    return book


def test_nothing_measured_yet(inhouse: Inhouse) -> None:
    ran = inhouse("profile", "ls")
    assert (ran.code, ran.out) == (0, "")
    assert "inhouse serve MODEL" in ran.err
    assert json.loads(inhouse("profile", "ls", "--json").out) == []


def test_launches_are_listed_with_their_sums(inhouse: Inhouse, book: ProfileBook) -> None:
    ran = inhouse("profile", "ls")
    assert ran.code == 0
    for said in ("qwen3-8b", "yi-1.5-6b", "2 × NVIDIA H100 80GB HBM3 81079MiB", "vLLM 0.32",
                 "weights 8.0 GiB; activations 2.0 GiB; graphs 1.0 GiB; other 1.0 GiB",
                 "left for the KV cache 60.0 GiB", "436,896 tokens of it",
                 "8192 tokens and 1024 sequences a step"):  # fmt: skip
        assert said in ran.out
    records = json.loads(inhouse("profile", "ls", "--json").out)
    assert [record["available_kv_bytes"] for record in records] == [None, 60 * 2**30, 60 * 2**30]
    assert records[1]["measured_at"] == "1970-01-01T00:16:40Z"
    assert records[1]["key"]["tensor_parallel"] == 2


def test_they_are_carried_to_another_machine(
    inhouse: Inhouse, book: ProfileBook, tmp_path: Path, home: Path
) -> None:
    file, there = tmp_path / "shared.json", tmp_path / "there"
    assert "3 profiles" in inhouse("profile", "export", str(file)).err
    ran = inhouse("profile", "import", str(file), "--home", str(there))
    assert ran.code == 0 and "3 profiles taken in" in ran.err
    assert set(ProfileBook(there / "profiles").all()) == set(book.all())
    again = inhouse("profile", "import", str(file), "--home", str(there), "--json")
    assert json.loads(again.out)["added"] == 0
    assert str(home) not in file.read_text()


def test_what_is_no_export_is_refused(inhouse: Inhouse, tmp_path: Path) -> None:
    file = tmp_path / "shared.json"
    file.write_text('{"format": 1, "profiles": [{"key": {}}]}')
    ran = inhouse("profile", "import", str(file))
    assert ran.code == 4 and "profiles.0.measured_at: is missing" in ran.err
    assert inhouse("profile", "import", str(tmp_path / "missing.json")).code == 4


def test_an_export_into_nowhere_is_refused(
    inhouse: Inhouse, book: ProfileBook, tmp_path: Path
) -> None:
    ran = inhouse("profile", "export", str(tmp_path / "missing" / "shared.json"))
    assert ran.code == 4 and "missing" in ran.err


def test_launches_are_forgotten(inhouse: Inhouse, book: ProfileBook) -> None:
    wrong = inhouse("profile", "rm", "qwen3-8")
    assert wrong.code == 2 and "qwen3-8b" in wrong.err
    assert len(book.all()) == 3
    assert "2 profiles forgotten" in inhouse("profile", "rm", "qwen3-8b").err
    assert [profile.model for profile in book.all()] == ["yi-1.5-6b"]
    assert json.loads(inhouse("profile", "rm", "all", "--json").out) == {"forgotten": 1}
    assert book.all() == ()


def test_a_server_measures_its_launches(house: House, inhouse: Inhouse) -> None:
    with house.serving("tiny"):
        (record,) = json.loads(inhouse("profile", "ls", "--json").out)
    assert (record["model"], record["outcome"], record["kv_blocks"]) == ("tiny", "ready", 728)
    assert record["key"]["engine_version"] == "0.32"
