"""Hosts kept ahead, and what the compiled form of a model changes in a start."""

import asyncio

import psutil
import pytest

from serve.engine.guarding import Guard
from serve.engine.spares import _ENOUGH_FREE_BYTES, Spares
from serve.errors import NotWritable, StartFailed
from tests.engine_unit.pools import FAKE_HOST, GIB, fake_plan, fake_pool, family, until


def guards() -> list[int]:
    return [child.pid for child in psutil.Process().children()]


def test_a_spare_is_used_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with fake_pool(spares=1) as pool:
            pool.keep_spares()
            await until(lambda: pool.spares == 1)
            (spare,) = guards()
            engine = await pool.start(fake_plan(), "r")
            assert engine.pid == spare
            await until(lambda: pool.spares == 1)
            assert len(guards()) == 2

    asyncio.run(scenario())
    assert "died" not in caplog.text


def test_no_spare_is_made_during_a_start() -> None:
    async def scenario() -> None:
        async with fake_pool(spares=1) as pool:
            starting = asyncio.create_task(pool.start(fake_plan(load_s=0.5), "r"))
            await until(lambda: len(guards()) == 1)
            pool.keep_spares()
            (engine,) = await asyncio.gather(starting)
            assert guards() == [engine.pid]
            await until(lambda: pool.spares == 1)

    asyncio.run(scenario())


def test_a_dead_spare_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with fake_pool(spares=1) as pool:
            pool.keep_spares()
            await until(lambda: pool.spares == 1)
            (spare,) = guards()
            psutil.Process(spare).kill()
            await until(lambda: pool.spares == 0)
            await until(lambda: pool.spares == 1)
            assert spare not in guards()

    asyncio.run(scenario())
    assert "a spare died" in caplog.text


def test_spares_that_keep_dying_do_not_stop_a_start() -> None:
    async def scenario() -> None:
        host = (*FAKE_HOST, "--die-importing", "7")
        async with fake_pool(spares=1, host=host) as pool:
            pool.keep_spares()
            with pytest.raises(StartFailed) as caught:
                await pool.start(fake_plan(), "r")
            assert caught.value.exit_code == 7

    asyncio.run(scenario())


def test_a_spare_that_cannot_be_made_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    async def make() -> Guard:
        tries.append(1)
        raise NotWritable("/run", "Read-only file system")

    async def scenario() -> None:
        keeper = asyncio.create_task(Spares(make, 1, lambda: 0).keep())
        await until(lambda: len(tries) == 2)
        keeper.cancel()

    asyncio.run(scenario())
    assert "Read-only file system" in caplog.text


@pytest.mark.parametrize(
    ("free_bytes", "count"), [(_ENOUGH_FREE_BYTES, 1), (_ENOUGH_FREE_BYTES - 1, 0)]
)
def test_spares_need_memory(free_bytes: int, count: int) -> None:
    async def scenario() -> None:
        async with fake_pool(spares=None, free_bytes=free_bytes) as pool:
            pool.keep_spares()
            await until(lambda: len(guards()) == count)
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(guards()) == count

    asyncio.run(scenario())


def test_the_first_start_is_eager_and_a_failing_compiled_one_falls_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        host = (*FAKE_HOST, "--die-compiled")
        async with fake_pool(compile="auto", free_bytes=64 * GIB, host=host) as pool:
            plan = fake_plan()
            first = await pool.start(plan, "r")
            assert first.mode == "eager"
            await first.stop(0)
            mark = pool._compiler._mark(plan)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            second = await pool.start(plan, "r")
            assert second.mode == "eager"
            assert not mark.exists()

    asyncio.run(scenario())
    assert "compiled form does not start" in caplog.text


def test_a_prepared_model_starts_compiled() -> None:
    async def scenario() -> None:
        async with fake_pool(compile="auto") as pool:
            plan = fake_plan()
            mark = pool._compiler._mark(plan)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            engine = await pool.start(plan, "r")
            assert engine.mode == "compiled"
            assert len(family(engine)) == 3

    asyncio.run(scenario())
