"""Temporary files of engines end with them, however that comes."""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serve.engine.guarding import (
    LONGEST_SOCKET_PATH_BYTES,
    Guard,
    Orders,
    new_folder,
    scratch_folder,
    socket_path_bytes,
)
from serve.engine.life import Engine
from serve.engine.pool import EnginePool
from serve.errors import NotWritable
from tests.engine_unit.pools import (
    FAKE_HOST,
    are_gone,
    fake_plan,
    family,
    pool_config,
    short_folder,
)
from tests.engine_unit.test_adopt import killed_supervisor

# Whom SIGKILL hits, of: outer guard, inner guard, host. Nobody: the engine is stopped.
VICTIMS = {
    "nobody": (),
    "outer": (0,),
    "inner": (1,),
    "host": (2,),
    "guards": (0, 1),
    "all": (0, 1, 2),
}
SYSTEMS = Path(tempfile.gettempdir())


@contextlib.contextmanager
def run_folder(is_long: bool) -> Iterator[tuple[Path, Path]]:
    """A home, and a folder for sockets in it; a long one has just room for those of ours."""
    with short_folder() as home:
        free = LONGEST_SOCKET_PATH_BYTES - socket_path_bytes(home / "run")
        yield home, home / ("run" + "x" * (free if is_long else 0))


def left_in(folder: Path) -> set[str]:
    """Kinds of what is there, by how names begin."""
    return {entry.name.partition("-")[0].partition("_")[0] for entry in folder.iterdir()}


@pytest.mark.parametrize("isolation", ["auto", "off"])
@pytest.mark.parametrize("is_long", [False, True], ids=["short", "long"])
@pytest.mark.parametrize("victims", VICTIMS.values(), ids=VICTIMS)
def test_nothing_is_left(isolation: str, is_long: bool, victims: tuple[int, ...]) -> None:
    async def scenario(home: Path, run: Path) -> None:
        async with EnginePool(pool_config(home, run_dir=run, isolation=isolation)) as pool:
            engine = await pool.start(fake_plan(), "r")
            scratch = scratch_folder(engine.socket.parent)
            assert (scratch.parent == SYSTEMS) == is_long
            assert {"vllm", "pymp"} <= left_in(scratch) and len(list(scratch.iterdir())) == 3
            assert await ended(engine, victims)
            assert not scratch.exists() and not list((run / "engines").iterdir())

    with run_folder(is_long) as (home, run):
        asyncio.run(scenario(home, run))


async def ended(engine: Engine, victims: tuple[int, ...]) -> bool:
    processes = family(engine)
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended with the one before
            processes[victim].kill()
    if not victims:
        await engine.stop(2.0)
    async with asyncio.timeout(10.0):
        await engine.ended()
    return await are_gone(processes, 2.0)


def test_the_next_supervisor_clears_what_nobody_else_could() -> None:
    async def scenario(home: Path) -> None:
        (engine,) = [each for each in folders(home) if (each / "engine.json").exists()]
        assert "vllm" in left_in(engine / "tmp")
        async with EnginePool(pool_config(home)) as pool:
            assert await pool.adopt() == ()
            assert folders(home) == []

    with short_folder() as home, killed_supervisor(home, "auto", 20.0) as left:
        for process in left["processes"]:  # guards too, all at once
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert asyncio.run(are_gone(left["processes"], 3.0))
        asyncio.run(scenario(home))


def folders(home: Path) -> list[Path]:
    return list((home / "run" / "engines").iterdir())


def test_links_are_removed_and_not_followed() -> None:
    async def scenario(home: Path) -> None:
        kept = home / "kept"
        kept.mkdir()
        (kept / "file").touch()
        async with EnginePool(pool_config(home)) as pool:
            engine = await pool.start(fake_plan(), "r")
            scratch = scratch_folder(engine.socket.parent)
            (scratch / "link").symlink_to(kept)
            (scratch / "deep" / "deeper").mkdir(parents=True)
            (scratch / "deep" / "link").symlink_to(kept / "file")
            await engine.stop(2.0)
            assert not scratch.exists()
        assert (kept / "file").exists()

    with short_folder() as home:
        asyncio.run(scenario(home))


def test_a_scratch_folder_of_somebody_else_is_not_taken() -> None:
    async def scenario(home: Path, run: Path) -> None:
        folder = new_folder(run)
        theirs = scratch_folder(folder)
        theirs.mkdir()
        try:
            with pytest.raises(NotWritable) as caught:
                await Guard.start(Orders(folder, home / "log", (), FAKE_HOST, {}, 1.0))
            assert caught.value.path == str(theirs)
            assert theirs.exists() and not folder.exists()
        finally:
            theirs.rmdir()

    with run_folder(True) as (home, run):
        asyncio.run(scenario(home, run))
