"""Connections of clients: requests for engines go past ASGI (`direct`), all others through it."""

import asyncio
import math
from collections import deque
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serve.gateway.direct import EXTENSION, Direct, Front, Listener
from serve.gateway.flow import Flow
from serve.gateway.known import KnownHead, KnownHeads
from serve.gateway.protocol import StrictProtocol
from serve.gateway.routes import find

_EMPTY: Any = ()
_MOST_LEARNT = 4  # heads of a connection: a client that never sends the same is not looked at more


class _Sender:
    """An ASGI `send` after which others get to know that the client has left."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    async def __call__(self, message: Any) -> None:
        await self._cycle.send(message)
        if self._cycle.transport.is_closing():
            await asyncio.sleep(0)


class DirectProtocol(StrictProtocol):
    """uvicorn's protocol, in which requests for engines go past ASGI to `front`, which is set on a
    subclass. Others are offered a `send` as the extension `EXTENSION`."""

    __slots__ = ("_known", "_learnt", "_news", "listener", "peer")
    front: Front
    heads: KnownHeads
    cycle: Any
    flow: Any
    pipeline: Any

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.listener: Listener | None = None
        self._news: Direct | None = None  # whose request has got on in what is being read
        self._known: KnownHead | None = None  # that this client has sent before
        self._learnt = 0
        self.peer = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # What the kernel does not take at once is too much already: it has taken megabytes.
        # (Not 0: under TLS even an empty buffer would be too full then.)
        transport.set_write_buffer_limits(high=1, low=0)
        self.flow = Flow(transport)
        self.pipeline = _EMPTY
        client = self.client
        self.peer = client[0] if client is not None else ""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.listener is not None:
            self.listener.left()
        if isinstance(self.cycle, Direct):
            self.cycle = None
        self.pipeline = _EMPTY

    def data_received(self, data: bytes) -> None:
        # Between requests the parser stands at the beginning of one, and need not know of those
        # that it would only find to be good again.
        is_between = self.cycle is None and not (self._is_in_head or self._is_in_body)
        known = self._known
        if is_between and known is not None and not self.transport.is_closing():
            body = known.body_in(data)
            if body is not None:
                self._due_s = math.inf
                direct = self.cycle = Direct(self, known.route, known.headers)
                direct.is_turn = True
                return direct.take(known, body)
        super().data_received(data)
        # Not in the parser's callback: first all that was read must have been found to be good.
        if self._news is not None:
            direct, self._news = self._news, None
            if is_between and direct.keep_alive and self._learnt < _MOST_LEARNT:
                self._learn(data, direct)
            direct.advance()

    def _learn(self, data: bytes, direct: Direct) -> None:
        if self._known is None or not self._known.opens(data):
            self._known = self.heads.learn(data, *direct.head, self.peer)
            self._learnt += 1

    def set_listener(self, listener: Listener | None) -> None:
        """Who hears of the client from now on."""
        tasks: set[Any] = self.tasks
        if self.listener is not None:
            tasks.discard(self.listener)
        self.listener = listener
        if listener is not None:
            tasks.add(listener)
            if self.flow.write_paused:
                listener.hold()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.listener is not None:
            self.listener.hold()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.listener is not None:
            self.listener.go_on()

    def on_response_complete(self) -> None:
        """As uvicorn does, but for the timer: who is idle for too long is found by `sweep`."""
        self.server_state.total_requests += 1
        if isinstance(self.cycle, Direct) and self.cycle.response_complete:
            self.cycle = None  # they know each other: nobody else would find that both are over
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif not self._is_in_head and not self._is_in_body:
            self._due_s = self.loop.time() + self.timeout_keep_alive

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Direct):  # not now: thousands of refusals would be calls in calls
            cycle.is_turn = True
            self.loop.call_soon(cycle.advance)
        else:
            super()._start_asgi_task(cycle, app)

    # the parser's callbacks

    def on_head(self, head: dict[bytes, bytes], version: str) -> None:
        route = find(self.url.partition(b"?")[0])
        cycle = self.cycle
        is_turn = cycle is None or cycle.response_complete
        if not is_turn and not self.pipeline:
            self.pipeline = deque()
        if route.target != "engine" or self.parser.get_method() != b"POST":
            super().on_head(head, version)
            scope: Any = self.scope  # an extension's value may be anything, whatever uvicorn says
            scope["extensions"] = {EXTENSION: _Sender(self.cycle)}
            return
        is_old = version == "1.0"
        is_kept = not is_old and self.parser.should_keep_alive()
        direct = self.cycle = Direct(self, route, head, is_old, is_kept)
        direct.expects = self.expect_100_continue
        direct.is_turn = is_turn
        self.headers = _EMPTY
        if is_turn:
            self._news = direct
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((direct, self.app))

    def on_body(self, body: bytes) -> None:
        direct = self.cycle
        if isinstance(direct, Direct):
            direct.feed(body)
            if direct.is_turn:
                self._news = direct
        elif direct is not None:
            super().on_body(body)

    def on_request_complete(self) -> None:
        direct = self.cycle
        if isinstance(direct, Direct):
            direct.more_body = False
            if direct.is_turn:
                self._news = direct
        elif direct is not None:
            super().on_request_complete()
