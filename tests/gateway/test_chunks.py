"""Chunks that go past the parser: neither clients nor books nor engines see a difference."""

import asyncio
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.gateway.body import NOTHING
from serve.gateway.call import Call
from serve.gateway.direct import Direct
from serve.gateway.exchange import Request
from serve.gateway.pool import Pool
from serve.gateway.routes import find
from serve.gateway.upstream import Connection, OnChunk

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%b\r\n"
CHUNKED = HEAD % b"Transfer-Encoding: chunked\r\n"
EVENT = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":" token"}}]}\n\n'
USAGE = (
    b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":7,'
    b'"total_tokens":16,"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
)
DONE = b"data: [DONE]\n\n"
CONTENTS = (
    EVENT, EVENT, EVENT, EVENT * 2, USAGE, DONE, USAGE + DONE, EVENT.replace(b"\n", b"\r\n"), b"\n",
    EVENT[:20], EVENT[20:], DONE[:8], DONE[8:], b"\r\n", b": ping\n\n", b'data: {"a":"[]"}\n\n',
    b'event: message_delta\ndata: {"usage":{"output_tokens":7}}\n\n', b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"event: message_stop\ndata: {}\n\n", b"\nevent: response.completed\ndata: {}\n\n", b"a\0b\n\n",
    b'data: {"x":"' + b"y" * 3000 + b'"}\n\n',
)  # fmt: skip
SIZES = (b"%x", b"%x", b"%x", b"%X", b"0%x", b"%x;a=b", b'%x;a="b"', b"%x ", b"0x%x", b"+%x")
ENDS = (
    b"0\r\n\r\n", b"0\r\n\r\n", b"", b"0\r\nX: y\r\n\r\n", b"000\r\n\r\n", b"zz\r\n", b"12",
    b"\r\n", b"4\r\nabcdef", b"5\r\nabc", b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
)  # fmt: skip

# Reads that are chunks by themselves, where none begins; and some that nearly are.
TRICKS = (
    (b"a\r\n", b"5\r\nhello\r\n", b"\r\n"), (b"14\r\nabcdefgh\r\n", b"5\r\nhello\r\n", b"\r\n"),
    (b"1", b"5\r\nhello\r\n", b"abcdefghijklmn\r\n"), (b"0\r\n", b"5\r\nhello\r\n"),
    (b"5\r\nhello\r", b"\n"), (b"5\r\nhello", b"5\r\nhello\r\n"), (b"5;a=", b"5\r\nhello\r\n"),
    (b'5;a="\r\n', b"5\r\nhello\r\n"), (b"0\r\nx: y\r\n", b"5\r\nhello\r\n"), (b"4\r\nabcdXY",),
    (b"4\r\nabcd\n\n",), (b"4\r\nabc\r\n\r\n",), (b"\r\n", b"5\r\nhello\r\n"),
    (b"0\r\n\r\n", EVENT),
    (b"5\r", b"\nhello\r\n"), (b"5", b"\r\nhello\r\n"), (b"000000005\r\nhello\r\n",),
    (b"5;a=b\r\n", b"hello\r\n"), (b"7\r\n", b"5\r\nhe\r\n", b"\r\n"),
    (b"0\r\n\r\n", b"5\r\nhello\r\n"),
)  # fmt: skip


class Wire(asyncio.Transport):
    """A connection's other end."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        self.written += map(bytes, parts)

    def is_closing(self) -> bool:
        return self.is_aborted

    def close(self) -> None:
        self.is_aborted = True

    def abort(self) -> None:
        self.is_aborted = True


class Parsed(Connection):
    """A connection whose parser gets everything."""

    __slots__ = ()

    def give_chunks(self, on_chunk: OnChunk) -> None:
        pass


class Told(Connection):
    """A connection that tells what went past its parser."""

    __slots__ = ("passed",)

    def give_chunks(self, on_chunk: OnChunk) -> None:
        self.passed: list[bytes] = []

        def told(content: bytes, chunk: bytes) -> None:
            self.passed.append(chunk)
            on_chunk(content, chunk)

        super().give_chunks(told)


class Client:
    """What a client makes of what it gets."""

    def __init__(self) -> None:
        self.body = b""
        self.is_complete = False
        self._parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True

    def feed(self, parts: list[bytes]) -> None:
        for part in parts:
            self._parser.feed_data(part)


class Passage:
    """One answer on its way, without a relay: who writes books and sends the end."""

    def __init__(
        self, kind: type[Connection], path: str, after: "Passage | None" = None, **call: bool
    ) -> None:
        self.outer, self.inner, self.client = Wire(), Wire(), Client()
        self.ends: list[object] = []
        self.counts = [0, 0]
        protocol: Any = SimpleNamespace(
            transport=self.outer, expect_100_continue=False, set_listener=lambda listener: None,
            parser=SimpleNamespace(should_keep_alive=lambda: True),
            server_state=SimpleNamespace(default_headers=[]), on_response_complete=lambda: None,
        )  # fmt: skip
        route = find(path.encode())
        direct: Any = Direct(protocol, route, {}, False)
        caller: Any = None
        request = Request(path, {}, b"id", direct, direct, caller)
        journal: Any = SimpleNamespace(count=self.counts.__setitem__)
        self.call = Call(request, route, NOTHING, journal, self._over, self._over)
        self.call.slot, self.call.body = 1, b""
        self.call.has_others = self.call.adds_cache = False
        for name, value in call.items():
            setattr(self.call, name, value)
        if after is None:
            self.connection = kind(Pool(), "unix:/engine")
            self.connection.connection_made(self.inner)
        else:
            self.connection, self.inner = after.connection, after.inner
        self.call.ask(self.connection, b"POST")

    def _over(self, call: Call) -> None:
        connection = self.connection
        assert call.notes is not None or not connection.is_headed
        usage = call.notes.usage() if call.notes is not None else None
        self.ends.append((call.is_complete, connection.is_complete, connection.is_lost, usage))
        call.let_go()
        if not call.is_complete:
            return connection.abort()
        connection.release() if connection.is_complete else connection.abort()
        call.outlet.end(call.last_bytes())

    def read(self, data: bytes) -> tuple[object, ...]:
        """The engine sends `data`; all that can be seen then."""
        while data and not self.inner.is_aborted:
            buffer = self.connection.get_buffer(-1)
            part, data = data[: len(buffer)], data[len(buffer) :]
            buffer[: len(part)] = part
            self.connection.buffer_updated(len(part))
        return self.seen()

    def lose(self) -> tuple[object, ...]:
        self.connection.eof_received()
        self.connection.connection_lost(None)
        return self.seen()

    def seen(self) -> tuple[object, ...]:
        self.client.feed(self.outer.written)
        self.outer.written.clear()
        call, notes = self.call, self.call.notes
        known = None if notes is None else (notes.events, notes.usage(), notes.ends_in_an_event())
        ends = (self.inner.is_aborted, self.connection.is_complete, call.is_over, self.ends)
        return (
            self.client.body,
            self.client.is_complete,
            known,
            ends,
            self.counts,
            call.first_s is None,
        )


def compare(path: str, reads: list[bytes], **call: bool) -> None:
    one, other = Passage(Connection, path, None, **call), Passage(Parsed, path, None, **call)
    for read in reads:
        assert one.read(read) == other.read(read)
    assert one.lose() == other.lose()
    for each in (one, other):
        each.call.let_go()


@pytest.fixture(scope="module", autouse=True)
def loop() -> Iterator[None]:
    """Calls want timers; none of them is due here."""
    with asyncio.Runner() as runner:
        asyncio._set_running_loop(runner.get_loop())
        yield
        asyncio._set_running_loop(None)


def chunk(content: bytes, size: bytes = b"%x") -> bytes:
    return size % len(content) + b"\r\n" + content + b"\r\n"


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """The reads of an answer: mostly whole chunks, alone or together, and some that are cut."""
    contents = draw(st.lists(st.sampled_from(CONTENTS) | st.binary(min_size=1, max_size=40)))
    plain = draw(st.booleans())
    sizes = [b"%x"] if plain else SIZES
    wire = [draw(st.sampled_from([CHUNKED, CHUNKED, CHUNKED, HEAD % b""]))]
    wire += [chunk(content, draw(st.sampled_from(sizes))) for content in contents]
    wire.append(draw(st.sampled_from(ENDS)))
    reads = [b""]
    for piece in wire:
        kind = draw(st.sampled_from(["alone", "alone", "alone", "joined", "cut"]))
        if kind == "joined":
            reads[-1] += piece
        elif kind == "cut":
            place = draw(st.integers(0, len(piece)))
            reads[-1] += piece[:place]
            reads += [piece[place:]]
        else:
            reads.append(piece)
        if draw(st.integers(0, 9)) == 0:
            reads += [*draw(st.sampled_from(TRICKS))]
    return [read for read in reads if read]


@settings(max_examples=400)
@given(streams(), st.sampled_from([CHAT, MESSAGES, RESPONSES]), st.booleans(), st.booleans())
def test_nothing_differs(reads: list[bytes], path: str, drops: bool, adds: bool) -> None:
    compare(path, reads, drops_usage=drops, adds_cache=adds)


@pytest.mark.parametrize("trick", TRICKS)
def test_nothing_differs_where_a_chunk_seems_to_begin(trick: tuple[bytes, ...]) -> None:
    after = [chunk(EVENT), chunk(EVENT), b"0\r\n\r\n"]
    for head in (CHUNKED, HEAD % b""):
        compare(CHAT, [head, chunk(EVENT), chunk(EVENT), *trick, *after])
        compare(CHAT, [head + chunk(EVENT), *trick, *after])
        compare(CHAT, [head, *trick, *after])


@pytest.mark.parametrize("drops", [False, True])
def test_nothing_differs_at_every_cut(drops: bool) -> None:
    parts = [chunk(EVENT), chunk(EVENT, b"%X"), chunk(EVENT, b"%x;a=b"), chunk(USAGE), chunk(DONE)]
    whole = CHUNKED + b"".join(parts) + b"0\r\nx: y\r\n\r\n"
    for place in range(len(whole) + 1):
        compare(CHAT, [whole[:place], whole[place:]], drops_usage=drops)
        more = [CHUNKED, *[chunk(EVENT)] * 3, whole[len(CHUNKED) : place], whole[place:]]
        compare(CHAT, [read for read in more if read], drops_usage=drops)


@pytest.mark.parametrize("drops", [False, True])
def test_events_leave_in_their_chunks(drops: bool) -> None:
    passage = Passage(Told, CHAT, drops_usage=drops)
    assert isinstance(passage.connection, Told)
    passage.read(CHUNKED)
    passage.read(chunk(EVENT))
    for number in range(1, 2000):
        content = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"x" * number)
        buffer = passage.connection.get_buffer(-1)
        buffer[: len(chunk(content))] = chunk(content)
        passage.connection.buffer_updated(len(chunk(content)))
        assert passage.outer.written == [chunk(content)] == passage.connection.passed[-1:]
        passage.seen()
    passage.read(chunk(USAGE))
    passage.read(chunk(DONE))
    assert not passage.client.body.endswith(DONE) and not passage.client.is_complete
    passage.read(b"0\r\n\r\n")
    assert passage.client.body.endswith(DONE) and passage.client.is_complete
    assert (USAGE in passage.client.body) is not drops
    assert not passage.inner.is_aborted


def test_what_is_no_chunk_ends_the_connection() -> None:
    for size in (b"%x ", b"0x%x", b"+%x", b" %x", b"-%x", b"%x_"):
        passage = Passage(Connection, CHAT)
        for read in (CHUNKED, chunk(EVENT), chunk(EVENT), chunk(EVENT, size)):
            passage.read(read)
        assert passage.inner.is_aborted and passage.client.body == EVENT * 2


@pytest.mark.parametrize("is_before", [True, False])
def test_bytes_that_nobody_asked_for_end_the_connection(is_before: bool) -> None:
    passage = Passage(Connection, CHAT)
    connection, wire = passage.connection, passage.inner
    if is_before:
        connection, wire = Connection(Pool(), "unix:/engine"), Wire()
        connection.connection_made(wire)
    else:
        for read in (CHUNKED, chunk(EVENT), chunk(EVENT), b"0\r\n\r\n"):
            passage.read(read)
        assert passage.client.body == EVENT * 2 and not wire.is_aborted
    buffer = connection.get_buffer(-1)
    buffer[: len(chunk(EVENT))] = chunk(EVENT)
    connection.buffer_updated(len(chunk(EVENT)))
    assert wire.is_aborted


def test_a_connection_that_is_kept_begins_anew() -> None:
    passage = Passage(Told, CHAT)
    answer = [CHUNKED, *[chunk(EVENT)] * 4, b"0\r\n\r\n"]
    for read in answer:
        passage.read(read)
    again = Passage(Told, CHAT, passage)
    for read in answer:
        again.read(read)
    assert again.client.body == EVENT * 4 and again.client.is_complete
    plain = Passage(Told, CHAT, passage)
    plain.read(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
    plain.read(b"5\r\nhello\r\n")
    assert plain.client.body == b"5\r\nhello\r\n" and not plain.inner.is_aborted
