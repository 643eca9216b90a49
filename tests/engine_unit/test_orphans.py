"""What is left of engines whose guard was killed: proven to be ours, or left alone."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serve.engine.orphans import MARKER, Home, end_orphans, find_orphans, is_ours, strangers
from serve.engine.pool import EnginePool
from serve.hardware.machine import Gpu, GpuProcess
from tests.engine_unit.pools import are_gone, fake_plan, family, pool_config, short_folder

HOME = Home(Path("/run/inhouse"), Path("/home/me/logs"))
MINE = f"{MARKER}=/run/inhouse/engines/1a2b3c4d"
LOG = "/home/me/logs/m-0@20261122-014210-1a2b3c4d.log"


def put(
    proc: Path,
    pid: int,
    parent: int = 1,
    uid: int | None = None,
    environ: str = "",
    said: tuple[str, str] = ("/dev/null", "/dev/null"),
    command: str = "python",
) -> int:
    """A process as /proc shows it; `said`: where its stdout and stderr go."""
    place = proc / str(pid)
    (place / "fd").mkdir(parents=True)
    (place / "stat").write_text(f"{pid} (a ) b) S {parent} 1 1 0")
    owner = os.geteuid() if uid is None else uid
    (place / "status").write_text(f"Name:\tx\nUid:\t{owner}\t0\t0\nVmRSS:\t  2048 kB\n")
    (place / "cmdline").write_bytes(command.replace(" ", "\0").encode())
    (place / "environ").write_bytes(b"PATH=/bin\0" + environ.encode() + b"\0")
    for number, target in zip(("1", "2"), said, strict=True):
        (place / "fd" / number).symlink_to(target)
    return pid


@pytest.mark.parametrize(
    ("process", "is_orphan"),
    [
        ({"environ": MINE}, True),
        ({"said": (LOG, LOG)}, True),
        ({"said": (f"{LOG} (deleted)", f"{LOG} (deleted)")}, True),
        ({"said": ("/home/me/logs/host-1a2b3c4d.log",) * 2}, True),
        ({"environ": MINE, "uid": os.geteuid() + 1}, False),
        ({"environ": f"{MARKER}=/run/others/engines/1a2b3c4d"}, False),
        ({"environ": f"X{MINE}"}, False),
        ({"said": (LOG, "/dev/null")}, False),  # somebody's own output beside our log
        ({"said": ("/home/you/logs/host-1a2b3c4d.log",) * 2}, False),
        ({"said": ("/home/me/logs/gateway-0.log",) * 2}, False),
        ({"environ": MINE, "command": "python -I -S /x/guard.py"}, False),
        ({}, False),
    ],
)
def test_only_what_is_proven_to_be_ours_is_an_orphan(
    process: dict[str, object], is_orphan: bool, tmp_path: Path
) -> None:
    put(tmp_path, 1, 0)
    put(tmp_path, 77, **process)  # type: ignore[arg-type]
    found = find_orphans(HOME, tmp_path)
    assert [orphan.pid for orphan in found] == ([77] if is_orphan else [])
    assert all(orphan.rss_bytes == 2 * 2**20 for orphan in found)


def test_who_has_a_guard_or_us_above_is_no_orphan(tmp_path: Path) -> None:
    put(tmp_path, 1, 0)
    put(tmp_path, 10, command="python -I -S /x/inside/guard.py")
    put(tmp_path, 11, 10, environ=MINE)
    put(tmp_path, 12, 11, environ=MINE)
    put(tmp_path, os.getpid(), 1)
    put(tmp_path, 13, os.getpid(), environ=MINE)
    put(tmp_path, 14, 99999, environ=MINE)  # its parent is gone since
    assert [orphan.pid for orphan in find_orphans(HOME, tmp_path)] == [14]


def test_what_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "self").mkdir()
    assert find_orphans(HOME, tmp_path) == ()
    assert not is_ours(5, HOME, tmp_path)


def test_strangers_are_named() -> None:
    processes = (
        GpuProcess(2**22 + 1, 20 * 2**30, "python train.py", "alice"),
        GpuProcess(2**22 + 2, None, None, None),
    )
    gpu = Gpu(1, "GPU-1", "H100", 80 * 2**30, 60 * 2**30, (9, 0), processes=processes)
    assert strangers((gpu,), HOME) == (
        f"GPU 1: process {2**22 + 1} (alice, python train.py, 20.0 GiB)",
        f"GPU 1: process {2**22 + 2} (unknown user, unknown command, unknown memory)",
    )


def test_what_a_killed_guard_leaves_behind_is_ended_at_the_next_start() -> None:
    """Without namespaces, both processes of the guard killed at once."""

    async def scenario(home: Path) -> None:
        config = pool_config(home, isolation="off")
        async with EnginePool(config) as pool:
            engine = await pool.start(fake_plan("m", leave_worker=1), "m-0")
            outer, inner, host, worker = family(engine)
            assert MARKER in worker.environ()
            for process in (outer, inner):
                process.send_signal(signal.SIGSTOP)
            for process in (inner, outer):
                process.kill()
            assert await engine.ended() is not None
            assert await are_gone([outer, inner, host], 3.0)
            assert worker.is_running()
            with _unrelated() as other:
                assert await pool.adopt() == ()
                assert await are_gone([worker], 3.0)
                assert other.poll() is None
                other.kill()

    with short_folder() as home:
        asyncio.run(scenario(home))


def test_engines_that_are_guarded_stay() -> None:
    async def scenario(home: Path) -> None:
        for isolation in ("off", "auto"):
            async with EnginePool(pool_config(home, isolation=isolation)) as pool:
                engine = await pool.start(fake_plan("m", leave_worker=1), "m-0")
                ours = Home((home / "run").resolve(), (home / "logs").resolve())
                assert all(is_ours(process.pid, ours) for process in family(engine)[2:])
                assert await end_orphans(ours) == ()
                assert all(process.is_running() for process in family(engine))

    with short_folder() as home:
        asyncio.run(scenario(home))


def _unrelated() -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    return subprocess.Popen(argv, env={MARKER: "/elsewhere/engines/1a2b3c4d"})
