"""A small file of lessons: newest wins, damaged counts as empty, old ones are tried anew."""

import json
import logging
import time
from pathlib import Path

import pytest

from serve.profiles import Lessons, lesson_key

KEY = lesson_key("abc", "H100", "Wishes()")


def test_what_was_learned_last_is_found(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path / "deep" / "lessons.json")
    assert lessons.find(KEY) == {}
    lessons.keep(KEY, {"context_tokens": 3072})
    lessons.keep("other", {"max_num_seqs": 1})
    lessons.keep(KEY, {"context_tokens": 2048, "gpu_memory_utilization": 0.87})
    found = Lessons(tmp_path / "deep" / "lessons.json").find(KEY)
    assert found == {"context_tokens": 2048, "gpu_memory_utilization": 0.87}


def test_every_condition_counts() -> None:
    others = [lesson_key("x", "H100", "Wishes()"), lesson_key("abc", "A100", "Wishes()")]
    others += [lesson_key("abc", "H100", "Wishes(1)"), lesson_key("ab", "cH100", "Wishes()")]
    assert len({KEY, *others}) == 5


def test_a_lesson_is_forgotten_after_a_month(tmp_path: Path) -> None:
    path = tmp_path / "lessons.json"
    for days, found in ((29, {"max_num_seqs": 1}), (31, {}), (-1, {})):
        lesson = {"key": KEY, "learned_at": time.time() - days * 86400}
        path.write_text(json.dumps([lesson | {"values": {"max_num_seqs": 1}}]))
        assert Lessons(path).find(KEY) == found


def test_the_file_stays_small(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path / "lessons.json")
    for number in range(210):
        lessons.keep(str(number), {"max_num_seqs": number})
    assert len(json.loads((tmp_path / "lessons.json").read_text())) == 200
    assert lessons.find("209") and not lessons.find("0")


@pytest.mark.parametrize(
    "content",
    ["", "null", "{}", '[{"key": 1}]', '[{"key": "k", "values": {}}]', "\x00\xff", "[" * 9999],
)
def test_a_damaged_file_holds_no_lessons_and_is_written_anew(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lessons.json"
    path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert Lessons(path).find(KEY) == {}
    assert "not read" in caplog.text
    Lessons(path).keep(KEY, {"max_num_seqs": 4})
    assert Lessons(path).find(KEY) == {"max_num_seqs": 4}


def test_without_a_file_nothing_is_kept() -> None:
    Lessons(None).keep(KEY, {"max_num_seqs": 4})
    assert Lessons(None).find(KEY) == {}


def test_a_place_that_cannot_be_written_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        Lessons(tmp_path / "file" / "lessons.json").keep(KEY, {"max_num_seqs": 4})
    assert "not remembered" in caplog.text
