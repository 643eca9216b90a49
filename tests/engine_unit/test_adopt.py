"""What becomes of engines when their supervisor is killed."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from serve.engine.pool import EnginePool
from tests.engine_unit.pools import are_gone, family, pool_config, short_folder

CHECKOUT = Path(__file__).parents[2]
both_ways = pytest.mark.parametrize("isolation", ["auto", "off"])


@contextmanager
def killed_supervisor(home: Path, isolation: str, grace_s: float) -> Iterator[dict[str, Any]]:
    """What the supervisor said; by then it is dead, and `processes` are those that it left."""
    argv = [sys.executable, "-m", "tests.engine_unit.supervisor", str(home), isolation]
    argv.append(str(grace_s))
    with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        facts = json.loads(supervisor.stdout.readline())
        facts["processes"] = psutil.Process(supervisor.pid).children(recursive=True)
        supervisor.kill()
    yield facts


@both_ways
def test_all_ends_after_the_grace(isolation: str) -> None:
    with short_folder() as home, killed_supervisor(home, isolation, 0.2) as left:
        assert (
            len(left["processes"]) >= 7
        )  # two guards with two processes each, host, spare, worker
        assert asyncio.run(are_gone(left["processes"], 3.0))
        assert list((home / "run" / "engines").iterdir()) == []


@both_ways
def test_a_supervisor_in_time_adopts_engines_and_ends_spares(isolation: str) -> None:
    async def scenario(home: Path, left: dict[str, Any]) -> None:
        async with EnginePool(pool_config(home, isolation=isolation)) as pool:
            (engine,) = await pool.adopt()
            assert (engine.replica, engine.pid) == ("smol-1", left["guard"])
            assert engine.plan.subject.spec.name == "smol"
            assert engine.started_at == left["started_at"]
            mine = family(engine)
            others = [process for process in left["processes"] if process not in mine]
            assert await are_gone(others, 2.0)
            assert len(list((home / "run" / "engines").iterdir())) == 1
            await engine.stop(2.0)
            assert await engine.ended() is None
            assert await are_gone(mine, 1.0)

    with short_folder() as home, killed_supervisor(home, isolation, 20.0) as left:
        asyncio.run(scenario(home, left))


def test_the_death_of_an_adopted_engine_is_told() -> None:
    async def scenario(home: Path) -> None:
        async with EnginePool(pool_config(home)) as pool:
            (engine,) = await pool.adopt()
            family(engine)[2].kill()
            async with asyncio.timeout(2.0):
                death = await engine.ended()
            assert death is not None
            assert death.exit_code == -9

    with short_folder() as home, killed_supervisor(home, "auto", 20.0):
        asyncio.run(scenario(home))


def test_folders_of_the_dead_are_cleared() -> None:
    async def scenario(home: Path) -> None:
        async with EnginePool(pool_config(home)) as pool:
            stale = home / "run" / "engines" / "0badcafe"
            stale.mkdir()
            (stale / "guard.sock").touch()
            assert await pool.adopt() == ()
            assert not stale.exists()

    with short_folder() as home:
        asyncio.run(scenario(home))
