import asyncio
import os
import socket as sockets
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from serve.control import Client, Status, serve_control
from serve.control.lock import lock_file, owned
from serve.errors import (
    AlreadyRunning,
    BadRequest,
    ControlLost,
    DoesNotFit,
    NotRunning,
    NotWritable,
    UnknownModel,
)
from serve.fleet import GatewayStatus, ModelStatus
from serve.roster import Roster, follow

T = TypeVar("T")
FACTS = Status(
    1, "0.1.0", 5.0, "http://127.0.0.1:8000", "vllm-x-cpu", "auto", (GatewayStatus(7, 0),)
)
READY = ModelStatus("m", "ready", "m-0", pid=3, restarts=1, problem={"error": "EngineDied"})


@dataclass
class FakeFleet:
    """Does what it is told to; `roster` may be replaced and `changed` set."""

    load_error: Exception | None = None
    unloaded: list[str] = field(default_factory=list)
    roster: Roster = field(default_factory=Roster)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self, name: str) -> ModelStatus:
        if self.load_error is not None:
            raise self.load_error
        return replace(READY, name=name)

    async def unload(self, name: str) -> None:
        self.unloaded.append(name)

    def status(self) -> tuple[ModelStatus, ...]:
        return (READY,)

    async def rosters(self) -> AsyncIterator[Roster]:
        while True:
            yield self.roster
            await self.changed.wait()
            self.changed.clear()


def served(socket: Path, fleet: FakeFleet, ask: Callable[[Client], T]) -> T:
    """What `ask` gets from a client of a control that serves `fleet`."""

    async def run() -> T:
        async with serve_control(socket, fleet, lambda: FACTS, lambda force: None):
            return await asyncio.to_thread(ask, Client(socket))

    return asyncio.run(run())


def inside(socket: Path, fleet: FakeFleet, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        async with serve_control(socket, fleet, lambda: FACTS, lambda force: None):
            return await work()

    return asyncio.run(run())


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


def test_status_comes_back_as_it_was(socket: Path) -> None:
    status = served(socket, FakeFleet(), Client.status)
    assert status == replace(FACTS, models=(READY,))


def test_load_and_unload(socket: Path) -> None:
    fleet = FakeFleet()
    assert served(socket, fleet, lambda client: client.load("qwen")).name == "qwen"
    served(socket, fleet, lambda client: client.unload("qwen"))
    assert fleet.unloaded == ["qwen"]


@pytest.mark.parametrize(
    "error",
    [
        UnknownModel("qwem", ("qwen",)),
        DoesNotFit("m", "cpu", 10, 5, (("weights", 9), ("KV cache", 1)), "--context 16"),
    ],
)
def test_errors_come_back_as_they_were(socket: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        served(socket, FakeFleet(load_error=error), lambda client: client.load("m"))
    assert str(caught.value) == str(error)


def test_a_body_with_an_unknown_field_is_refused(socket: Path) -> None:
    async def ask() -> httpx.Response:
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.post("http://control/load", json={"modle": "m"})

    answer = inside(socket, FakeFleet(), ask)
    assert answer.status_code == 409
    assert answer.json()["error"] == BadRequest.__name__


def test_stop_is_passed_on_and_waits_for_the_end(socket: Path) -> None:
    asked: list[bool] = []
    forced = asyncio.Event()

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def on_stop(force: bool) -> None:
            asked.append(force)
            forced.set()

        async with serve_control(socket, FakeFleet(), lambda: FACTS, on_stop):
            stopping = loop.run_in_executor(None, Client(socket).stop, True)
            await forced.wait()
            assert not stopping.done()
        await stopping

    asyncio.run(run())
    assert asked == [True]
    assert not socket.exists()


def test_rosters_are_followed_until_the_end(socket: Path) -> None:
    fleet = FakeFleet()

    async def run() -> list[int]:
        seen = []
        async with serve_control(socket, fleet, lambda: FACTS, lambda force: None):
            feed = follow(socket)
            seen.append((await anext(feed)).version)
            fleet.roster = Roster(version=8)
            fleet.changed.set()
            seen.append((await anext(feed)).version)
        with pytest.raises(ControlLost):
            await anext(feed)
        return seen

    assert asyncio.run(run()) == [0, 8]


def test_the_socket_is_the_owners_alone(socket: Path) -> None:
    async def modes() -> tuple[int, int]:
        return stat.S_IMODE(socket.stat().st_mode), stat.S_IMODE(socket.parent.stat().st_mode)

    assert inside(socket, FakeFleet(), modes) == (0o600, 0o700)


def test_a_folder_that_was_there_keeps_its_mode(socket: Path) -> None:
    async def modes() -> tuple[int, int]:
        return stat.S_IMODE(socket.stat().st_mode), stat.S_IMODE(socket.parent.stat().st_mode)

    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.parent.chmod(0o1777)  # somebody's INHOUSE_RUN=/tmp
    assert inside(socket, FakeFleet(), modes) == (0o600, 0o1777)


def test_a_second_supervisor_is_refused_and_the_first_lives_on(socket: Path) -> None:
    async def second() -> str:
        with pytest.raises(AlreadyRunning):
            async with serve_control(socket, FakeFleet(), lambda: FACTS, lambda force: None):
                pass
        status = await asyncio.to_thread(Client(socket).status)
        return status.version

    assert inside(socket, FakeFleet(), second) == "0.1.0"


def test_a_stale_socket_is_taken_over(socket: Path) -> None:
    socket.parent.mkdir()
    dead = sockets.socket(sockets.AF_UNIX)
    dead.bind(str(socket))
    dead.close()
    assert served(socket, FakeFleet(), Client.status).pid == FACTS.pid


def test_nobody_there(socket: Path) -> None:
    with pytest.raises(NotRunning) as caught:
        Client(socket).status()
    assert caught.value.socket == str(socket)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"])
def test_an_answer_that_is_cut_or_none_of_ours(socket: Path, said: bytes) -> None:
    async def run() -> None:
        closed = asyncio.Event()

        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            writer.close()
            await writer.wait_closed()
            closed.set()

        socket.parent.mkdir()
        async with await asyncio.start_unix_server(speak, socket):
            with pytest.raises(ControlLost):
                await asyncio.to_thread(Client(socket).status)
            await closed.wait()

    asyncio.run(run())


def test_a_place_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritable), owned(tmp_path / "file" / "control.sock"):
        pass
    long = tmp_path / ("x" * 120) / "control.sock"
    with pytest.raises(NotWritable):
        served(long, FakeFleet(), Client.status)


def test_no_child_inherits_the_lock(socket: Path) -> None:
    with owned(socket):
        descriptors = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
        places = {fd: os.path.realpath(f"/proc/self/fd/{fd}") for fd in descriptors}
        held = [fd for fd, place in places.items() if place == str(lock_file(socket).resolve())]
        assert len(held) == 1 and not os.get_inheritable(held[0])
