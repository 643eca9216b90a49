"""Lives of fake engines, with namespaces (where this machine grants them) and without."""

import asyncio
import stat
import time
from pathlib import Path

import httpx
import pytest

from serve.engine.isolation import find_isolation
from serve.engine.life import Engine
from serve.engine.pool import EnginePool
from serve.errors import EngineDied, SettingsError, StartFailed, StartTimedOut
from tests.engine_unit.pools import (
    are_gone,
    fake_plan,
    fake_pool,
    family,
    pool_config,
    short_folder,
)

both_ways = pytest.mark.parametrize("isolation", ["auto", "off"])


async def info(engine: Engine) -> dict[str, object]:
    transport = httpx.AsyncHTTPTransport(uds=str(engine.socket))
    async with httpx.AsyncClient(transport=transport) as client:
        answer: dict[str, object] = (await client.get("http://engine/fake/info")).json()
        return answer


@both_ways
def test_an_engine_serves_and_is_stopped(isolation: str) -> None:
    async def scenario() -> None:
        async with fake_pool(isolation=isolation) as pool:
            engine = await pool.start(fake_plan("smol"), "smol-1")
            facts = await info(engine)
            assert facts["flags"]["served-model-name"] == "smol"  # type: ignore[index]
            assert (engine.replica, engine.mode) == ("smol-1", "eager")
            assert engine.isolation == pool.isolation.level
            assert engine.ready_after_s < 10
            assert "startup complete" in engine.log_path.read_text()
            assert engine.log_path.name.startswith("smol-1@")
            assert stat.S_IMODE(engine.socket.parent.stat().st_mode) == 0o700
            processes = family(engine)
            await engine.stop(5.0)
            assert await engine.ended() is None
            assert await are_gone(processes, 0.0)
            assert not engine.socket.parent.exists()

    asyncio.run(scenario())


def test_an_engine_gets_a_closed_environment() -> None:
    async def scenario() -> None:
        environ = {"PATH": "/usr/bin:/bin", "HF_TOKEN": "secret", "INHOUSE_API_KEY": "secret"}
        async with fake_pool(environ=environ) as pool:
            environment = (await info(await pool.start(fake_plan(), "r")))["environ"]
            assert isinstance(environment, dict)
            assert "secret" not in environment.values()
            assert environment["HF_HUB_OFFLINE"] == "1"

    asyncio.run(scenario())


def test_twenty_start_at_once() -> None:
    async def scenario() -> None:
        async with fake_pool() as pool:
            names = [f"m{number}" for number in range(20)]
            engines = await asyncio.gather(*(pool.start(fake_plan(n), n) for n in names))
            assert len({engine.socket for engine in engines}) == 20
            pids = [(await info(engine))["pid"] for engine in engines]
            assert len(pids) == 20

    asyncio.run(scenario())


@both_ways
def test_stop_while_starting_leaves_nothing(isolation: str) -> None:
    async def scenario() -> None:
        async with fake_pool(isolation=isolation) as pool:
            starting = asyncio.create_task(pool.start(fake_plan(load_s=60), "slow"))
            log = await first_log(pool)
            assert log.startswith("slow@")
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting

    asyncio.run(scenario())


async def first_log(pool: object) -> str:
    folder = pool._config.log_dir  # type: ignore[attr-defined]
    while not (found := [path.name for path in folder.glob("*@*")]):
        await asyncio.sleep(0.01)
    return str(found[0])


@both_ways
def test_death_while_loading_says_why(isolation: str) -> None:
    async def scenario() -> None:
        async with fake_pool(isolation=isolation) as pool:
            with pytest.raises(StartFailed) as caught:
                await pool.start(fake_plan(die_loading="memory"), "r")
            assert caught.value.exit_code == 1
            assert caught.value.cause == "the weights leave no memory for the KV cache"
            assert "No available memory" in Path(caught.value.log_path).read_text()

    asyncio.run(scenario())


def test_an_engine_that_has_failed_and_stays_is_ended_with_its_cause() -> None:
    async def scenario() -> None:
        async with fake_pool(start_timeout_s=8.0) as pool:
            with pytest.raises(StartFailed) as caught:
                await pool.start(fake_plan(die_loading="memory", stay_dead=1), "r")
            assert caught.value.cause == "the weights leave no memory for the KV cache"
            assert (caught.value.exit_code, caught.value.finding) == (None, ("no_kv",))

    asyncio.run(scenario())


def test_a_host_that_cannot_be_started_says_why() -> None:
    async def scenario() -> None:
        async with fake_pool(host=("/no/such/python",)) as pool:
            with pytest.raises(StartFailed) as caught:
                await pool.start(fake_plan(), "r")
            assert caught.value.exit_code == 127
            assert "/no/such/python" in Path(caught.value.log_path).read_text()

    asyncio.run(scenario())


def test_start_times_out() -> None:
    async def scenario() -> None:
        async with fake_pool(start_timeout_s=0.5) as pool:
            with pytest.raises(StartTimedOut) as caught:
                await pool.start(fake_plan(load_s=60), "r")
            assert caught.value.waited_s == 0.5

    asyncio.run(scenario())


@both_ways
@pytest.mark.parametrize(("code", "seen"), [(3, 3), (-9, -9)])
def test_death_after_ready_is_told_with_its_code(isolation: str, code: int, seen: int) -> None:
    async def scenario() -> None:
        async with fake_pool(isolation=isolation) as pool:
            plan = fake_plan("m", die_after_s=0.3, die_code=code)
            engine = await pool.start(plan, "r")
            death = await engine.ended()
            assert isinstance(death, EngineDied)
            assert (death.model, death.exit_code) == ("m", seen)
            assert not engine.socket.parent.exists()

    asyncio.run(scenario())


def test_a_sick_engine_is_ended_and_told() -> None:
    async def scenario() -> None:
        async with fake_pool() as pool:
            engine = await pool.start(fake_plan(sick_after_s=0.2), "r")
            processes = family(engine)
            async with asyncio.timeout(0.2 + 1.5):
                assert isinstance(await engine.ended(), EngineDied)
            assert await are_gone(processes, 0.0)

    asyncio.run(scenario())


@both_ways
def test_a_stubborn_engine_and_its_worker_die(isolation: str) -> None:
    async def scenario() -> None:
        async with fake_pool(isolation=isolation) as pool:
            engine = await pool.start(fake_plan(ignore_term=1, leave_worker=1), "r")
            processes = family(engine)
            assert len(processes) == 4
            started = time.monotonic()
            await engine.stop(0.3)
            assert 0.3 <= time.monotonic() - started < 2
            assert await are_gone(processes, 0.0)

    asyncio.run(scenario())


@both_ways
@pytest.mark.parametrize("victim", [0, 1, 2], ids=["outer", "inner", "host"])
def test_sigkill_of_anyone_leaves_nothing(isolation: str, victim: int) -> None:
    async def scenario() -> None:
        async with fake_pool(isolation=isolation) as pool:
            engine = await pool.start(fake_plan(leave_worker=1), "r")
            processes = family(engine)
            processes[victim].kill()
            async with asyncio.timeout(2.0):
                assert isinstance(await engine.ended(), EngineDied)
            assert await are_gone(processes, 0.0)
            assert not engine.socket.parent.exists()

    asyncio.run(scenario())


def test_leaving_the_pool_ends_all() -> None:
    async def scenario() -> None:
        async with fake_pool() as pool:
            engine = await pool.start(fake_plan(ignore_term=1), "r")
            starting = asyncio.create_task(pool.start(fake_plan(load_s=60), "slow"))
            await asyncio.sleep(0)
        assert await engine.ended() is None
        with pytest.raises(StartFailed):
            await starting

    asyncio.run(scenario())


def test_a_run_folder_too_long_for_sockets_is_refused() -> None:
    async def scenario() -> None:
        with short_folder() as folder:
            config = pool_config(folder, run_dir=folder / ("x" * 80))
            async with EnginePool(config) as pool:
                with pytest.raises(SettingsError) as caught:
                    await pool.start(fake_plan(), "r")
                assert caught.value.key == "paths.run"
                assert await pool.adopt() == ()

    asyncio.run(scenario())


def test_old_logs_of_a_replica_go() -> None:
    async def scenario() -> None:
        async with fake_pool() as pool:
            for _ in range(7):
                engine = await pool.start(fake_plan(), "r")
                await engine.stop(0)
            assert len(list(engine.log_path.parent.iterdir())) == 5
            assert engine.log_path.exists()

    asyncio.run(scenario())


@pytest.mark.skipif(find_isolation("auto").level != "full", reason="no PID namespaces here")
def test_a_guard_that_does_not_listen_is_ended_by_the_kernel() -> None:
    async def scenario() -> None:
        async with fake_pool() as pool:
            engine = await pool.start(fake_plan(leave_worker=1), "r")
            processes = family(engine)
            processes[1].suspend()
            async with asyncio.timeout(5.0):
                await engine.stop(0)
            assert await are_gone(processes, 0.0)

    asyncio.run(scenario())
