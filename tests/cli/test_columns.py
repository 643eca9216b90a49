import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.cli import output
from serve.cli.columns import cells, columns

CELL = st.text(st.sampled_from("ab 模é"), max_size=12)
ROWS = st.lists(st.tuples(CELL, CELL, st.text(st.sampled_from("ab 模\n"), max_size=90)), min_size=1)


@given(ROWS, st.integers(1, 120))
def test_columns_stand_below_each_other_and_nothing_is_lost(
    rows: list[tuple[str, str, str]], width: int
) -> None:
    lines = list(columns(rows, 2, width))
    (left,) = {cells(first) for first, _ in lines}
    assert left == sum(max(cells(row[n]) for row in rows) + 2 for n in (0, 1))
    assert all(cells(last) <= max(width - left, 20) for _, last in lines)
    shown = "".join(last for _, last in lines)
    said = "".join(row[2] for row in rows)
    assert "".join(shown.split()) == "".join(said.split())


@given(ROWS)
def test_what_fits_is_left_as_it_is(rows: list[tuple[str, str, str]]) -> None:
    lines = [last for _, last in columns(rows, 2, 10_000)]
    assert lines == "\n".join(row[2] for row in rows).split("\n")


def test_words_are_kept_together_where_they_can_be() -> None:
    text = "the quick brown fox jumps over the lazy dog " + "x" * 30
    lines = [last for _, last in columns([("a", text)], 2, 23)]
    assert lines == ["the quick brown fox", "jumps over the lazy", "dog", "x" * 20, "x" * 10]


def test_nothing_is_drawn_of_nothing() -> None:
    assert list(columns([], 2, 80)) == []


@pytest.mark.parametrize(
    ("text", "wide"), [("abc", 3), ("模型", 4), ("\u00e9", 1), ("e\u0301", 1), ("", 0)]
)
def test_cells(text: str, wide: int) -> None:
    assert cells(text) == wide


def test_what_a_terminal_would_obey_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b]0;owned\x07b\x9b31m"
    output.say(hostile)
    output.put_table(("MODEL", "NOTE"), [(hostile, hostile)])
    output.put_facts([("model", hostile)])
    output.put_check("model", False, hostile, hostile)
    output.show_usage(f"no such thing: {hostile}", "inhouse")
    said = capsys.readouterr()
    assert not {"\x1b", "\x07", "\x9b"} & {*said.out, *said.err}
    assert said.out.count("a\\x1b]0;owned\\x07b\\x9b31m") == 5


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "is_coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"NO_COLOR": "1", "TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    variables: dict[str, str], is_coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    output.say("ready", "bold green")
    assert terminal.getvalue() == ("\x1b[1;32mready\x1b[0m\n" if is_coloured else "ready\n")
