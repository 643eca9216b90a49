"""Marked words by every way into a house, and out of it by none."""

import random
from pathlib import Path

import pytest

from tests.stack import canary
from tests.stack.deeds import DEEDS
from tests.stack.search import Search, forms


@pytest.mark.timeout(180)
def test_no_word_of_anybody_is_kept(tmp_path: Path) -> None:
    told = canary.run(tmp_path, 260, random.Random(1))
    assert told.hits == []
    assert {way for way, _ in told.ways} == DEEDS.keys()
    good = sum(count for (_, answer), count in told.ways.items() if answer == "200")
    assert good > 80 and told.n_marked > 40 and told.n_places > 50


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    word = "knry0123456789abxyz"
    search = Search({"it": word})
    places = {form: tmp_path / form.replace(",", "") for form in forms(word)}
    for (form, pattern), path in zip(forms(word).items(), places.values(), strict=True):
        path.write_bytes(b"before" * 1000 + pattern + b"after")
        assert any(form in hit for hit in search.file(path)), form
    (tmp_path / "nothing").write_bytes(word[:-1].encode())
    (tmp_path / "empty").touch()
    assert search.file(tmp_path / "nothing") == search.file(tmp_path / "empty") == []
