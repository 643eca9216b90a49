import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.cli.bar import Bar
from serve.cli.progress import Lines

MIB = 2**20


class Clock:
    """Time that passes when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_tell_every_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(clock)
    lines.start("tiny", 100 * MIB, 4)
    for number in range(10):
        clock.now += 0.5
        lines.advance(10 * MIB)
        if number % 3 == 2:
            lines.file_done()
    lines.note("verifying")
    lines.finish()
    assert capsys.readouterr().err.splitlines() == [
        "tiny (100.0 MiB, 4 files)",
        "tiny: 30%, 30.0 MiB of 100.0 MiB, 0/4 files, 20.0 MiB/s, 3.5 s left",
        "tiny: 50%, 50.0 MiB of 100.0 MiB, 1/4 files, 20.0 MiB/s, 2.5 s left",
        "tiny: 80%, 80.0 MiB of 100.0 MiB, 2/4 files, 20.0 MiB/s, 1.0 s left",
        "verifying",
        "tiny: 100.0 MiB in 5.0 s",
    ]


def test_lines_tell_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(clock)
    lines.start("big", 10**6 * MIB)
    for _ in range(25):
        clock.now += 1.0
        lines.advance(MIB)
    said = capsys.readouterr().err
    assert said.count("\n") == 3 and "\r" not in said
    assert "big: 0%, 10.0 MiB of 976.6 GiB, 1.0 MiB/s, 11 d 13 h left" in said


def test_lines_say_no_end_that_was_not_reached(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(Clock())
    lines.start("tiny", 1000, 1)
    lines.advance(100)
    lines.finish()
    lines.finish()
    assert capsys.readouterr().err == "tiny (1000 B, 1 file)\n"


def test_lines_take_back_what_was_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(Clock())
    lines.start("tiny", 1000)
    for n_bytes in (600, -600, 600, 400):
        lines.advance(n_bytes)
    lines.finish()
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "tiny (1000 B)",
        "tiny: 60%",
        "tiny: 1000 B in 0 ms",
    ]


def test_lines_without_a_size_tell_only_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.start("converting", None)
    lines.advance(5)
    lines.finish()
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


@pytest.mark.parametrize("shown", [Lines(), Bar()])
def test_several_threads_may_tell(shown: Lines | Bar, capsys: pytest.CaptureFixture[str]) -> None:
    threads, steps, ready = 8, 200, threading.Barrier(8)

    def tell() -> None:
        ready.wait()
        for _ in range(steps):
            shown.advance(10)
        shown.file_done()
        shown.note("done")

    shown.start("tiny", threads * steps * 10, threads)
    with ThreadPoolExecutor(threads) as pool:
        told = [pool.submit(tell) for _ in range(threads)]
    assert [one.result() for one in told] == [None] * threads
    shown.finish()
    lines = capsys.readouterr().err.splitlines()
    assert sum(line == "done" for line in lines) == threads
    if isinstance(shown, Lines):
        assert lines[-1].startswith("tiny: 15.6 KiB in ")
        assert all(line == "done" or line.startswith("tiny") for line in lines)
    else:
        assert "8/8 files" in lines[-1]
