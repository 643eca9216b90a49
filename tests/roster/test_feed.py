import asyncio
from math import isfinite
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serve.errors import ControlLost, NotRunning
from serve.quota import Key
from serve.roster import Replica, Roster, ServedModel, follow
from tests.fakes.fake_control import FakeControl, running_control

READY = ServedModel("m", ("alias",), "ready", 4096, 7, (Replica("m-0", "unix:/run/m.sock"),))
ROSTER = Roster(1, (READY,), (Key("k", "ab" * 32, "tenant"),), is_open=False)


@given(st.from_type(Roster))
def test_a_roster_survives_the_wire(roster: Roster) -> None:
    assume(all(isfinite(key.expires_at or 0) for key in roster.keys))
    line = roster.to_line()
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert Roster.from_line(line) == roster


@pytest.mark.parametrize("line", [b"", b"[]", b'{"version":"1"}', b"\xff", b'{"models":[{}]}'])
def test_what_is_no_roster_is_refused(line: bytes) -> None:
    with pytest.raises(ControlLost):
        Roster.from_line(line)


def test_the_feed_gives_the_current_roster_and_every_later_one(tmp_path: Path) -> None:
    with running_control(tmp_path / "control.sock", ROSTER) as control:
        seen = asyncio.run(_two(control))
    assert seen == [ROSTER, Roster(2)]


async def _two(control: FakeControl) -> list[Roster]:
    feed = follow(control.socket)
    first = await anext(feed)
    half = Roster(2).to_line()
    await asyncio.to_thread(control.say, b"\n" + half[:5])  # lines may come in pieces
    await asyncio.to_thread(control.say, half[5:])
    return [first, await anext(feed)]


def test_nobody_at_the_socket_is_said(tmp_path: Path) -> None:
    async def first() -> Roster:
        return await anext(follow(tmp_path / "none.sock"))

    with pytest.raises(NotRunning):
        asyncio.run(first())


def test_a_feed_that_breaks_is_said(tmp_path: Path) -> None:
    async def all_of(control: FakeControl) -> None:
        async for _ in follow(control.socket):
            await asyncio.to_thread(control.stop)

    with running_control(tmp_path / "c.sock", ROSTER) as control, pytest.raises(ControlLost):
        asyncio.run(all_of(control))
