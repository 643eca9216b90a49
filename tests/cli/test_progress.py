import pytest

from serve.cli.progress import Bar, Lines


def test_lines_tell_every_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.start("tiny", 1000)
    for _ in range(10):
        lines.advance(100)
    lines.note("verifying")
    lines.finish()
    assert capsys.readouterr().err.splitlines() == [
        "tiny (1000 B)",
        "tiny: 25%",
        "tiny: 50%",
        "tiny: 75%",
        "tiny: 100%",
        "verifying",
    ]


def test_lines_without_a_size_tell_only_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.start("converting", None)
    lines.advance(5)
    assert capsys.readouterr().err == "converting\n"


def test_a_bar_may_be_started_twice_and_told_things(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar.note("before")
    bar.start("one", 100)
    bar.advance(100)
    bar.start("two", None)
    bar.note("[not markup]")
    bar.finish()
    bar.finish()
    said = capsys.readouterr()
    assert "before" in said.err and "[not markup]" in said.err and said.out == ""
