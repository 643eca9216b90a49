"""The queue at work: turns, deadlines, and clients that leave at any moment."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from serve.errors import QueueFull, QueueTimeout, RateLimited
from serve.limits import Admission, Table, Ticket
from serve.limits.rates import Counts
from serve.quota import Limits
from tests.limits.asking import ask

WIDE = Limits(10**6, 10**9, 10**6, 10**12, 10**12, 10**12, 10**12)


def counts_of(table: Table, name: str = "m") -> Counts:
    owner = {"m": "model", "k": "key", "t": "tenant"}[name]
    with table.changing():
        return table.read(table.row(owner, name))  # type: ignore[arg-type]


def nobody_is_in(table: Table) -> bool:
    found = [counts_of(table, name) for name in ("m", "k", "t")]
    return all(
        (c.in_flight, c.reserved_tokens, c.reserved_nanos, c.waiting, c.waiting_tokens) == (0,) * 5
        for c in found
    )


async def until(happens: Callable[[], bool]) -> None:
    while not happens():
        await asyncio.sleep(0)


def in_loop(story: Callable[[Table, Admission], Awaitable[None]], most_waiting: int = 10) -> Table:
    table = Table(None)

    async def run() -> None:
        await story(table, Admission(table, most_waiting))

    asyncio.run(run())
    return table


ONE = ask(10, 10, of_key=WIDE, of_tenant=WIDE, of_model=WIDE, slots=1)
HASTY = ask(10, 10, of_key=WIDE, of_tenant=WIDE, of_model=WIDE, slots=1, wait_s=0.02)


def test_who_waits_comes_in_when_a_place_is_free() -> None:
    async def story(table: Table, admission: Admission) -> None:
        first = await admission.enter(ONE)
        assert admission.try_enter(ONE) is None
        second = asyncio.create_task(admission.enter(ONE))
        await until(lambda: counts_of(table).waiting == 1)
        assert counts_of(table).in_flight == 2
        first.settle(1, 1)
        ticket = await second
        assert ticket.waited_s > 0
        assert counts_of(table).in_flight == 1
        ticket.settle(1, 1)
        assert counts_of(table, "k").day_tokens == 2

    assert nobody_is_in(in_loop(story))


def test_nobody_overtakes_those_who_wait() -> None:
    async def story(table: Table, admission: Admission) -> None:
        first = await admission.enter(ONE)
        order: list[int] = []

        async def wait(number: int) -> None:
            ticket = await admission.enter(ONE)
            order.append(number)
            ticket.settle(1, 0)

        waiters = [asyncio.create_task(wait(number)) for number in range(5)]
        await until(lambda: counts_of(table).waiting == 5)
        first.settle(1, 0)
        assert admission.try_enter(ONE) is None
        await asyncio.gather(*waiters)
        assert order == [0, 1, 2, 3, 4]

    assert nobody_is_in(in_loop(story))


def test_a_queue_has_an_end_and_a_wait_too() -> None:
    async def story(table: Table, admission: Admission) -> None:
        first = await admission.enter(ONE)
        waiters = [asyncio.create_task(admission.enter(HASTY)) for _ in range(3)]
        await until(lambda: counts_of(table).waiting == 3)
        with pytest.raises(QueueFull) as full:
            await admission.enter(HASTY)
        assert full.value.retry_after_s > 0
        for outcome in await asyncio.gather(*waiters, return_exceptions=True):
            assert isinstance(outcome, QueueTimeout)
            assert outcome.waited_s >= 0.02 and outcome.retry_after_s > 0
        assert counts_of(table).in_flight == 1
        assert counts_of(table).day_tokens == 0
        first.settle(1, 0)

    assert nobody_is_in(in_loop(story, most_waiting=3))


def test_limits_refuse_and_do_not_queue() -> None:
    async def story(table: Table, admission: Admission) -> None:
        limited = ask(10, of_key=Limits(concurrency=2), slots=1)
        first = await admission.enter(limited)
        second = asyncio.create_task(admission.enter(limited))
        await until(lambda: counts_of(table).waiting == 1)
        with pytest.raises(RateLimited, match="concurrency"):
            await admission.enter(limited)
        first.settle(1, 0)
        (await second).settle(1, 0)

    assert nobody_is_in(in_loop(story))


def test_a_waiter_s_place_in_the_limits_is_held() -> None:
    """Neither is the minute used twice, nor given to somebody else while it waits."""

    async def story(table: Table, admission: Admission) -> None:
        limited = ask(50, of_key=Limits(rpm=2, tpm=100), slots=1)
        first = await admission.enter(limited)
        second = asyncio.create_task(admission.enter(limited))
        await until(lambda: counts_of(table).waiting == 1)
        with pytest.raises(RateLimited):
            await admission.enter(limited)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        third = asyncio.create_task(admission.enter(limited))  # what the second had is there again
        await until(lambda: counts_of(table).waiting == 1)
        first.settle(50, 0)
        (await third).settle(50, 0)

    assert nobody_is_in(in_loop(story))


@pytest.mark.parametrize("steps", range(12))
@pytest.mark.parametrize("freed", ["later", "before", "after"])
def test_leaving_at_any_moment_leaks_nothing(steps: int, freed: str) -> None:
    """`steps`: turns of the event loop before the client leaves; the place may get free in the
    very turn in which it does."""

    async def story(table: Table, admission: Admission) -> None:
        first = await admission.enter(ONE)
        task = asyncio.create_task(admission.enter(ONE))
        behind = asyncio.create_task(admission.enter(ONE))
        for _ in range(steps):
            await asyncio.sleep(0)
        if freed == "before":
            first.settle(1, 0)
        task.cancel()
        if freed == "after":
            first.settle(1, 0)
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, Ticket):
            outcome.settle(0, 0)
        first.settle(1, 0)
        (await behind).settle(0, 0)
        assert counts_of(table, "k").day_tokens == 1
        used_ns = counts_of(table, "k").request_tat - table.clock.monotonic_ns()
        assert used_ns <= 3 * 60_000

    assert nobody_is_in(in_loop(story))


def test_two_hundred_clients_race_for_quotas() -> None:
    most = 0

    async def story(table: Table, admission: Admission) -> None:
        limited = ask(10, 3, of_tenant=Limits(tokens_per_day=500), slots=4)

        async def client() -> bool:
            nonlocal most
            try:
                ticket = await admission.enter(limited)
            except (RateLimited, QueueFull):
                return False
            counts = counts_of(table)
            most = max(most, counts.in_flight - counts.waiting)
            await asyncio.sleep(0)
            ticket.settle(10, 3)
            return True

        let_in = await asyncio.gather(*(client() for _ in range(200)))
        assert sum(let_in) == 50
        assert counts_of(table, "t").day_tokens == 500

    assert nobody_is_in(in_loop(story, most_waiting=1000))
    assert most == 4


def test_a_waiter_notices_what_another_process_gives_back(tmp_path: Path) -> None:
    Table.make(tmp_path / "limits", slots=2)

    async def run() -> None:
        here, there = (Admission(Table(tmp_path / "limits", slot), 10) for slot in (0, 1))
        first = await there.enter(ONE)
        waiter = asyncio.create_task(here.enter(ONE))
        await asyncio.sleep(0)
        assert there.try_enter(ask(slots=3)) is None  # nor overtakes anybody over there
        first.settle(1, 0)
        assert there.try_enter(ONE) is None
        (await waiter).settle(1, 0)
        assert there.try_enter(ONE) is not None

    asyncio.run(run())
