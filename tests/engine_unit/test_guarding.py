"""Guards by themselves, on every rung of isolation that this machine grants."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from serve.engine.guarding import Guard, Orders
from serve.engine.isolation import _LADDER, _try
from serve.engine.process import run
from serve.shipped import shipped
from tests.engine_unit.pools import FAKE_HOST, are_gone, short_folder

GRANTED = [(), *(rung for rung in _LADDER if _try(rung) is None)]
every_rung = pytest.mark.parametrize("namespaces", GRANTED, ids="+".join)


@asynccontextmanager
async def waiting_guard(
    namespaces: tuple[str, ...], grace_s: float = 5.0, is_background: bool = False
) -> AsyncIterator[tuple[Guard, list[psutil.Process]]]:
    """A guard whose host waits for orders, with all its processes; they are gone at the end."""
    with short_folder() as home:
        env = {"PATH": "/usr/bin:/bin"}
        folder, log = home / "guard", home / "log"
        orders = Orders(folder, log, namespaces, FAKE_HOST, env, grace_s, is_background)
        guard = await Guard.start(orders)
        assert await guard.imported()
        outer = psutil.Process(guard.pid)
        processes = [outer, *outer.children(recursive=True)]
        assert len(processes) == 3
        yield guard, processes
        await guard.end()
        assert await are_gone(processes, 0.0)
        assert not folder.exists()


@every_rung
@pytest.mark.parametrize("victim", [0, 1, 2], ids=["outer", "inner", "host"])
def test_sigkill_ends_all(namespaces: tuple[str, ...], victim: int) -> None:
    async def scenario() -> None:
        async with waiting_guard(namespaces) as (guard, processes):
            processes[victim].kill()
            async with asyncio.timeout(2.0):
                code = await guard.gone()
            assert code == (-signal.SIGKILL if victim == 2 else None)

    asyncio.run(scenario())


@every_rung
def test_without_a_connection_it_leaves(namespaces: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with waiting_guard(namespaces, grace_s=0.1) as (guard, processes):
            guard._writer.close()
            assert await are_gone(processes, 2.0)

    asyncio.run(scenario())


@pytest.mark.skipif(len(GRANTED) == 1, reason="no namespaces here")
@pytest.mark.parametrize("namespaces", GRANTED[1:], ids="+".join)
def test_there_is_no_way_out(namespaces: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with waiting_guard(namespaces) as (_, processes):
            argv = [sys.executable, str(shipped("inside/escape.py")), str(processes[2].pid)]
            code, said = await asyncio.to_thread(run, argv)
            ways = json.loads(said)
            assert code == 0, ways
            assert len(ways) >= 15
            assert "open" not in ways.values()

    asyncio.run(scenario())


def test_the_escape_probe_knows_a_way_when_there_is_one() -> None:
    if "".join(entry.name for entry in Path("/sys/class/net").iterdir()) == "lo":
        pytest.skip("this machine has no network itself")
    # Nothing is sent: tests do not talk to anybody outside.
    argv = [sys.executable, str(shipped("inside/escape.py")), str(os.getpid()), "interface"]
    assert run(argv) == (1, '{"interface": "open"}\n')


@every_rung
def test_orders_may_come_before_the_host_is_up(namespaces: tuple[str, ...]) -> None:
    async def scenario(home: Path) -> None:
        orders = Orders(
            home / "guard", home / "log", namespaces, FAKE_HOST, {"PATH": "/usr/bin:/bin"},
            grace_s=5.0, is_background=True,
        )  # fmt: skip
        guard = await Guard.start(orders)
        guard.go(["--uds", str(guard.socket), "--served-model-name", "fake"], {})
        async with asyncio.timeout(10.0):
            while not guard.socket.exists():
                await asyncio.sleep(0.01)
        await guard.end()

    with short_folder() as home:
        asyncio.run(scenario(home))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes less nice again")
def test_a_waiting_host_is_nice_until_it_serves() -> None:
    async def scenario() -> None:
        async with waiting_guard((), is_background=True) as (guard, processes):
            niceness = processes[2].nice()
            guard.go(["--fake-load-s", "60"], {})
            while processes[2].nice() == niceness:
                await asyncio.sleep(0.01)
            assert processes[2].nice() == psutil.Process().nice()

    asyncio.run(scenario())


@every_rung
def test_a_signal_reaches_the_host_alone(namespaces: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with waiting_guard(namespaces) as (guard, _):
            guard.signal(signal.SIGTERM)
            assert await guard.gone() == -signal.SIGTERM

    asyncio.run(scenario())
