"""Slow readers and people who leave: a gateway holds nothing of them when they are gone."""

import asyncio
from collections.abc import Iterator

import psutil
import pytest

from tests.stack.client import Client
from tests.stack.house import House, running_house, until

_READERS, _ROUNDS = 150, 3
_MOST_GROWTH_BYTES = 12 * 2**20


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("soak")
    knobs = {"long": {"rate": 30.0, "chunks": 60, "chunk_text": "word " * 40}}
    with running_house(folder / "house", knobs, {}) as running:
        yield running


def test_nothing_is_left_of_those_who_are_gone(house: House) -> None:
    (pid,) = house.gateways()
    gateway = psutil.Process(pid)
    asyncio.run(_round(house))  # what is made once: pools, tables, buffers
    until(house.is_quiet)
    held = _held(gateway)
    sizes = [gateway.memory_info().rss]
    for _ in range(_ROUNDS):
        asyncio.run(_round(house))
        until(house.is_quiet)
        sizes.append(gateway.memory_info().rss)
    until(lambda: _held(gateway) <= held)
    assert max(sizes) - sizes[0] < _MOST_GROWTH_BYTES, sizes
    assert house.gateways() == [pid]
    assert house.ask_engine("long", "/fake/info")["running"] == 0


def _held(gateway: psutil.Process) -> int:
    """Descriptors, but for idle connections to the engine, which are kept for the next ones."""
    return gateway.num_fds() - len(gateway.net_connections("unix"))


async def _round(house: House) -> None:
    """Everybody begins a stream; a third reads to its end, the others leave on the way."""
    body = {"model": "long", "stream": True, "messages": [{"role": "user", "content": "a"}]}

    async def read(number: int) -> None:
        client = Client(house.port)
        leave_after_s = None if number % 3 == 0 else 0.2 + number / 100
        seen = await client.ask(body, leave_after_s=leave_after_s)
        client.close()
        assert seen.has_left or (seen.status == 200 and seen.is_ended)
        assert seen.has_left == (leave_after_s is not None)

    await asyncio.gather(*map(read, range(_READERS)))
