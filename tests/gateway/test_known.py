"""Heads that are known: the same requests come out as when each is parsed, whatever comes in."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from hypothesis import example, given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from serve.errors import InhouseError
from serve.gateway.direct import Direct
from serve.gateway.door import Door
from serve.gateway.exchange import Request
from serve.gateway.front import DirectProtocol
from serve.gateway.known import KnownHead, KnownHeads
from serve.gateway.routes import Route, find
from serve.gateway.served import Served
from serve.quota import Key, digest_key
from serve.roster import Roster

PATH = b"/v1/chat/completions"
SDK = b"Authorization: Bearer k\r\nAccept: application/json\r\nX-Stainless-Lang: python\r\n"
HEADS = (
    b"Host: a\r\n" + SDK,
    b"host:a:8000\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n",
    b"Host: a\r\nX-Request-Id: 7\r\n",
    b"Host: a\r\nConnection: close\r\n",
    b"Host: a\r\nExpect: 100-continue\r\n",
    b"Host: a\r\nUpgrade: h2c\r\n",
    b"Host: a\r\nX-Empty:\r\n",
    b"Host: a\r\nX-Padded:  two  \r\n",
    b"Host: a\r\nX-Folded: one\r\n two\r\n",
    b"Host: a\nX-Bare: lf\r\n",
    b"Host: a\r\nHost: b\r\n",
    b"Host: a\r\nContent-Length: 3\r\n",
    b"Host: a\r\nX-A: \xe9\r\n",
    b"Host : a\r\n",
)
LINES = (
    b"POST " + PATH + b" HTTP/1.1\r\n",
    b"POST " + PATH + b"?a=b HTTP/1.1\r\n",
    b"POST /v1/embeddings HTTP/1.1\r\n",
    b"POST " + PATH + b" HTTP/1.0\r\n",
    b"GET /health HTTP/1.1\r\n",
)
ENDS = (b"Content-Length: %d\r\n", b"content-length:%d\r\n", b"Content-Length: 00%d\r\n")


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Mostly the plainest of all, again and again."""
    line: bytes = draw(st.sampled_from(LINES[:1] * 6 + LINES))
    head: bytes = draw(st.sampled_from(HEADS[:2] * 6 + HEADS))
    body: bytes = draw(st.sampled_from((b"", b"{}", b'{"model":"a"}', b"x" * 300)))
    if draw(st.integers(0, 19)) == 0:
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        return line + head + b"Transfer-Encoding: chunked\r\n\r\n" + framed
    end: bytes = draw(st.sampled_from(ENDS[:1] * 6 + ENDS)) % (len(body) + draw(ERRORS))
    before: bytes = draw(st.sampled_from((b"",) * 9 + (b"\r\n",)))
    return before + line + head + end + b"\r\n" + body


ERRORS = st.sampled_from((0,) * 30 + (1, -1))


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_over = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_over = True

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("10.0.0.7", 5), "sockname": ("10.0.0.1", 80)}.get(name, default)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


class Ear:
    """A front that answers each request at once, and remembers what it heard."""

    most_body_bytes = 10_000

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[bytes, bytes], bytes]] = []
        self.n_known = 0

    def enter(
        self, direct: Direct, route: Route, headers: dict[bytes, bytes], peer: str
    ) -> Request | None:
        assert peer == "10.0.0.7"
        return Request(route.name, headers, b"1", None, direct, None)  # type: ignore[arg-type]

    def carry(self, request: Request, route: Route, body: bytes) -> None:
        headers = {k: v for k, v in request.headers.items() if k != b"content-length"}
        self.heard.append((route.name, headers, body))
        assert isinstance(request.send, Direct)
        request.send.start(200, [(b"a", b"b")], b"2")
        request.send.end(b"ok")

    def take(self, direct: Direct, known: KnownHead, body: bytes, peer: str) -> None:
        self.n_known += 1
        request = self.enter(direct, known.route, known.headers, peer)
        assert request is not None
        self.carry(request, known.route, body)

    def refuse_directly(self, request: Request, route: Route, error: InhouseError) -> None:
        raise AssertionError


class Never(KnownHeads):
    """Learns nothing."""

    def learn(self, *given: Any) -> None:
        return None


@contextmanager
def served(known: KnownHeads) -> Iterator[tuple[DirectProtocol, Transport, Ear]]:
    """A connection. What is no engine's goes to an app that never answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    ear, transport = Ear(), Transport()

    class Protocol(DirectProtocol):
        __slots__ = ()
        front = ear
        heads = known

    loop = asyncio.new_event_loop()
    try:
        config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None)
        config.load()
        state = ServerState()
        state.default_headers = []
        protocol = Protocol(config=config, server_state=state, app_state={}, _loop=loop)
        protocol.connection_made(transport)
        yield protocol, transport, ear
        protocol.connection_lost(None)
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()


def told(known: KnownHeads, reads: list[bytes]) -> tuple[list[Any], bytes, bool, int]:
    with served(known) as (protocol, transport, ear):
        for data in reads:
            if not transport.is_over:
                protocol.data_received(data)
            protocol.loop.run_until_complete(asyncio.sleep(0))
        return ear.heard, b"".join(transport.written), transport.is_over, ear.n_known


@given(st.lists(messages(), min_size=1, max_size=8), st.lists(st.integers(0, 4000), max_size=4))
@example([LINES[0] + HEADS[0] + b"Content-Length: 2\r\n\r\n{}"] * 3, [])
def test_what_is_known_is_heard_as_if_it_were_parsed(sent: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(sent)
    ends = [sum(map(len, sent[: n + 1])) for n in range(len(sent))]
    at = sorted({0, *ends, *(cut % len(whole) for cut in cuts)})
    reads = [whole[start:end] for start, end in zip(at, at[1:], strict=False)]
    assert told(KnownHeads(), reads)[:3] == told(Never(), reads)[:3]


def test_the_second_request_is_not_parsed() -> None:
    one = LINES[0] + HEADS[0] + b"Content-Length: 2\r\n\r\n{}"
    other = LINES[0] + HEADS[0] + b'Content-Length: 13\r\n\r\n{"model":"a"}'
    heard, _, is_over, n_known = told(KnownHeads(), [one, other, one, one + other, other])
    assert [body for _, _, body in heard] == [b"{}", other[-13:], b"{}", b"{}", other[-13:]] + [
        other[-13:]
    ]
    assert (n_known, is_over) == (3, False)


def test_connections_share_what_they_know_and_forget_it_together() -> None:
    one = LINES[0] + HEADS[0] + b"Content-Length: 2\r\n\r\n{}"
    headers = {b"host": b"a", b"authorization": b"Bearer k", b"accept": b"application/json",
               b"x-stainless-lang": b"python", b"content-length": b"2"}  # fmt: skip
    heads, route = KnownHeads(), find(PATH)
    first = heads.learn(one, headers, route, "10.0.0.7")
    assert first is not None and first is heads.learn(one, headers, route, "10.0.0.7")
    assert first is not heads.learn(one, headers, route, "10.0.0.8")
    assert b"content-length" not in first.headers
    assert first.told == b"accept: application/json\r\n"
    assert first.body_in(one) == b"{}"
    assert first.body_in(one[:-1]) is None and first.body_in(one + b"P") is None
    assert heads.learn(one, headers | {b"host": b"b"}, route, "10.0.0.7") is None
    del first
    assert not heads._heads


def test_a_client_that_never_says_the_same_is_not_looked_at_for_long() -> None:
    row = b"X-Id: %d\r\nContent-Length: 2\r\n\r\n{}"
    reads = [LINES[0] + HEADS[0] + row % number for number in range(50)]

    class Counted(KnownHeads):
        asked = 0

        def learn(self, *given: Any) -> KnownHead | None:
            self.asked += 1
            return super().learn(*given)

    heads = Counted()
    heard, _, _, n_known = told(heads, reads)
    assert (len(heard), n_known, heads.asked) == (50, 0, 4)


def test_a_known_head_does_not_let_in_whom_the_roster_forgets() -> None:
    key = Key("k1", digest_key("k"), "t", expires_at=100.0)
    served_, now = Served(Roster(1, (), (key,), is_open=False)), [50.0]
    door = Door(served_, clock=lambda: now[0])
    one = LINES[0] + HEADS[0] + b"Content-Length: 2\r\n\r\n{}"
    headers = {b"host": b"a", b"authorization": b"Bearer k", b"accept": b"application/json",
               b"x-stainless-lang": b"python", b"content-length": b"2"}  # fmt: skip
    known = KnownHeads().learn(one, headers, find(PATH), "10.0.0.7")
    assert known is not None and door.known(known) is None
    caller = door.enter(known.headers, "10.0.0.7", "inference")
    door.remember(known, caller)
    assert door.known(known) is caller
    now[0] = 100.0
    assert door.known(known) is None
    now[0] = 50.0
    served_.update(Roster(2, (), (), is_open=False))
    assert door.known(known) is None
