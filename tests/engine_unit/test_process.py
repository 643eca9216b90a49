"""Children: what they read and say, how they end, and who learns of it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from serve.engine.process import Child, Watched, run
from serve.errors import NotWritable
from tests.engine_unit.pools import are_gone, until

PATH = {"PATH": "/usr/bin:/bin"}


def shell(script: str, log: Path) -> Child:
    return Child.spawn(["sh", "-c", script], PATH, log)


def in_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    asyncio.run(main())


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9)])
def test_exit_codes_reach_everybody_who_waits(tmp_path: Path, script: str, code: int) -> None:
    async def scenario() -> None:
        child = shell(script, tmp_path / "log")
        assert set(await asyncio.gather(child.wait(), child.wait())) == {code}
        assert await child.wait() == code
        child.signal(signal.SIGTERM)  # to nobody
        assert not psutil.pid_exists(child.pid)

    in_loop(scenario)


def test_what_it_reads_and_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = tmp_path / "log"
        argv = ["sh", "-c", "cat; echo $KEY; echo oops >&2"]
        for _ in range(2):
            child = Child.spawn(argv, PATH | {"KEY": "value"}, log, stdin=b"in\n")
            await child.wait()
        assert log.read_text() == "in\nvalue\noops\n" * 2
        assert log.stat().st_mode & 0o777 == 0o600

    in_loop(scenario)


def test_stop_ends_the_whole_group_even_if_it_will_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = tmp_path / "log"
        child = shell("trap '' TERM; sleep 60 & echo up; wait; wait", log)
        await until(lambda: "up" in log.read_text())
        family = psutil.Process(child.pid).children() + [psutil.Process(child.pid)]
        assert await child.stop(0.1) == -signal.SIGKILL
        assert await are_gone(family, 1.0)

    in_loop(scenario)


def test_stop_is_gentle_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = tmp_path / "log"
        child = shell("trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done", log)
        await until(lambda: "up" in log.read_text())
        assert await child.stop(10.0) == 5

    in_loop(scenario)


@pytest.mark.parametrize("argv", [["/no/such/program"], ["/"]])
def test_a_program_that_cannot_be_started(tmp_path: Path, argv: list[str]) -> None:
    async def scenario() -> None:
        with pytest.raises(NotWritable) as caught:
            Child.spawn(argv, PATH, tmp_path / "log")
        assert caught.value.path == argv[0]

    in_loop(scenario)


def test_a_child_dies_with_us(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, pathlib
from serve.engine.process import Child
async def main():
    child = Child.spawn(["sleep", "60"], {PATH!r}, pathlib.Path({str(tmp_path / "log")!r}),
                        dies_with_us=True)
    while pathlib.Path(f"/proc/{{child.pid}}/comm").read_text() != "sleep\\n":
        await asyncio.sleep(0.01)
    print(child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert asyncio.run(are_gone([child], 2.0))


def test_watched_is_told_of_processes_that_are_not_ours(tmp_path: Path) -> None:
    async def scenario() -> None:
        child = shell("sleep 60", tmp_path / "log")
        watched = Watched(child.pid)
        watched.kill()
        await watched.gone()
        watched.kill()
        assert await child.wait() == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            Watched(child.pid)

    in_loop(scenario)


def test_run_tells_line_by_line() -> None:
    seen: list[str] = []
    code, said = run(["sh", "-c", "cat; echo b >&2; exit 4"], PATH, b"a\n", seen.append)
    assert (code, said, seen) == (4, "a\nb\n", ["a", "b"])


def test_run_of_nothing_is_127() -> None:
    code, said = run(["/no/such/program"])
    assert code == 127
    assert "/no/such/program" in said


def test_run_kills_its_child_when_the_listener_fails() -> None:
    pids: list[int] = []

    def fail(line: str) -> None:
        pids.append(int(line))
        raise KeyError(line)

    with pytest.raises(KeyError):
        run(["sh", "-c", "echo $$; exec sleep 60"], dict(os.environ), on_line=fail)
    assert not psutil.pid_exists(pids[0])
