"""One request on its way: what its engine and its client report, in callbacks that never wait."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from serve.gateway import errors
from serve.gateway.body import NOTHING, Asked
from serve.gateway.direct import Direct
from serve.gateway.exchange import Request
from serve.gateway.filter import USAGE, EventFilter, with_cache_words
from serve.gateway.messages import Messages
from serve.gateway.noting import StreamNotes, WholeNotes
from serve.gateway.routes import Route
from serve.gateway.upstream import Connection
from serve.gateway.waiting import Comments
from serve.journal import End, Journal
from serve.limits import Ticket
from serve.roster import Replica, ServedModel

Headers = list[tuple[bytes, bytes]]

# Proxies between us and the client must neither hold back nor change a stream.
_STREAM_HEADERS = [(b"cache-control", b"no-cache, no-transform"), (b"x-accel-buffering", b"no")]
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_UNLIKELY = b"\0"  # in a text; quickly looked for
_COMMENT = b": waiting\n\n"
_PATIENCE_S = 1.0  # for the end of a stream, once its last event has begun


class Lease(Protocol):
    """What `Chooser.pick` gives."""

    @property
    def replica(self) -> Replica: ...

    def end(self, prompt_tokens: int | None = None, cached_tokens: int | None = None) -> None: ...


class Trace(Protocol):
    """What `Traces.begin` gives."""

    @property
    def header(self) -> bytes: ...

    def end(self, record: End) -> None: ...


class Call:
    """Everything that is known of one request, from its body to its end.

    An engine's bytes pass through `news` to the client. `on_over` is called when the answer is
    complete, or lost, or declined (`has_others`: somebody else may be asked), or not wanted any
    more. The last bytes are kept for that: `last_bytes` leave when the books are written.
    `on_drained` is called when the time to drain is over.
    """

    # What is not set here is before it is read: each line less counts, in what each request does.
    mark: int
    slot: int
    tokens: tuple[int, int]  # input and output, as estimated
    avoid: frozenset[str]  # replicas that are not asked
    body: bytes  # as the engine gets it; dropped when a stream has begun
    adds_cache: bool
    has_others: bool
    _headers: Headers
    _pass_on: Callable[[bytes], None]

    __slots__ = (
        "_collected", "_headers", "_hint", "_last", "_pass_on", "_timer", "adds_cache", "asked",
        "at", "avoid", "body", "closed", "comments", "connection", "drops_usage", "first_s",
        "has_left", "has_others", "id", "is_answering", "is_begun", "is_closed", "is_complete",
        "is_declined", "is_held", "is_over", "is_settled", "is_stream", "journal", "lease", "mark",
        "model", "notes", "on_drained", "on_over", "outlet", "prompt_bytes", "queue_s", "request",
        "route", "salt", "slot", "started_s", "status", "stream", "ticket", "tokens", "trace",
        "tries", "waiting",
    )  # fmt: skip

    def __init__(
        self, request: Request, route: Route, asked: Asked, journal: Journal,
        on_over: "Callable[[Call], None]", on_drained: "Callable[[Call], None]",
    ) -> None:  # fmt: skip
        self.request, self.route, self.asked, self.journal = request, route, asked, journal
        self.on_over, self.on_drained = on_over, on_drained
        send = request.send
        self.outlet: Direct | Messages = (
            send if isinstance(send, Direct) else Messages(request.receive, send)
        )
        self.at, self.started_s = time.time(), time.perf_counter()
        self.id = request.id.decode()
        self.prompt_bytes = len(asked.prompt)
        self.model: ServedModel | None = None
        self.ticket: Ticket | None = None
        self.lease: Lease | None = None
        self.trace: Trace | None = None
        self.comments: Comments | None = None  # while a stream is silent
        self.connection: Connection | None = None  # while an engine works on it
        self.waiting: asyncio.Task[Any] | None = None  # what is to be done before it goes on
        self.closed: asyncio.Future[None] | None = None  # for who awaits it
        self.stream: EventFilter | None = None
        self.notes: StreamNotes | WholeNotes | None = None  # of the answer
        self.status = self.tries = 0
        self.salt = b""  # that keeps its prefix cache apart
        self.queue_s = 0.0
        self.first_s: float | None = None  # when the first bytes of the answer came
        self.drops_usage = False
        self.has_left = self.is_held = False
        self.is_begun = self.is_settled = self.is_stream = False
        self.is_answering = self.is_declined = self.is_complete = self.is_over = False
        self.is_closed = False
        self._collected: list[bytes] | None = None  # an answer that is changed as a whole
        self._last = b""
        self._hint = b""  # whole events without it need no filter; none is without this one
        self._timer: asyncio.TimerHandle | None = None

    # what the relay does

    def ask(self, connection: Connection, head: bytes) -> None:
        """Send the request to an engine."""
        self.connection = connection
        if self.is_over:  # another engine was
            self.is_answering = self.is_declined = self.is_complete = self.is_over = False
        connection.ask(head, self.body, self.news)
        if self.is_held:
            connection.pause()

    def last_bytes(self) -> bytes:
        """What is still to be sent of a complete answer."""
        if self._collected is not None:
            return self._changed(b"".join(self._collected))
        if self.stream is not None:
            return self.stream.feed(self._last) + self.stream.close()
        return self._last

    def let_go(self) -> None:
        """The engine's part is over: nothing of it is listened to any more."""
        self.connection = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.comments is not None:
            self.end_silence()

    def end_silence(self) -> None:
        """There is something to say; no comments any more."""
        if self.comments is not None:
            self.comments.forget(self)
            self.comments = None

    # what the client does (`direct.Listener`)

    def left(self) -> None:
        """The client has closed the connection."""
        self.has_left = True
        if self.connection is not None:
            self.connection.abort()
        if self.waiting is not None:
            self.waiting.cancel()
        else:
            self._finish()

    def cancel(self, msg: object = None) -> None:
        """The time to drain is over; as a task's: it takes effect later."""
        asyncio.get_running_loop().call_soon(self.on_drained, self)

    def hold(self) -> None:
        """The client does not take what it gets."""
        self.is_held = True
        if self.connection is not None:
            self.connection.pause()

    def go_on(self) -> None:
        """It takes it again."""
        self.is_held = False
        if self.connection is not None:
            self.connection.resume()

    def comment(self) -> None:
        """Say that we are still there."""
        if not self.outlet.is_started:
            headers = [_EVENTS, (b"x-request-id", self.request.shown_id), *_STREAM_HEADERS]
            self.outlet.start(200, headers, None)
        self.outlet.write(_COMMENT)

    # what the engine does

    def news(self) -> None:
        """The connection has something new."""
        connection = self.connection
        if self.is_over or connection is None:
            return
        if not self.is_answering:
            if not connection.is_headed:
                if connection.is_lost:
                    self._finish()
                return
            self.status = connection.status
            if self.status == 503 and self.has_others:
                self.is_declined = True
                return self._finish()
            self._begin(connection)
        self.is_complete = connection.is_complete
        if data := connection.take():
            self._pass(data)
        if self.is_complete or connection.is_lost:
            self._finish()

    def _begin(self, connection: Connection) -> None:
        self.is_answering = True
        self.is_stream = connection.content_type.startswith(b"text/event-stream")
        headers, length = connection.headers, connection.length
        headers.append((b"x-request-id", self.request.shown_id))
        if self.ticket is not None:
            headers += self.ticket.headers()
        if self.is_stream:
            headers += _STREAM_HEADERS
            self.notes = StreamNotes(self.route.name, self.journal.count, self.slot)
            if isinstance(self.outlet, Direct):
                connection.give_chunks(self._pass_chunk)
            # Thousands of streams last for minutes: they keep nothing that they do not need.
            self.body, self.asked = b"", NOTHING
            if self.drops_usage or self.adds_cache:
                self.stream = EventFilter(self.drops_usage, self.adds_cache)
                length = None
        else:
            self.notes = WholeNotes()
            if self.outlet.is_started or self.adds_cache:
                self._collected, self._headers = [], headers
                return
        if not self.outlet.is_started:
            self.outlet.start(self.status, headers, length)
            if not connection.has_body():
                self.outlet.flush()
        if self.is_stream:
            connection.headers = []
            if isinstance(self.outlet, Direct):
                self.request.headers = {}

    def _pass(self, data: bytes) -> None:
        if self.first_s is None:
            self.first_s = time.perf_counter()
            if self.comments is not None:
                self.end_silence()
        is_end = self.notes.note(data)  # type: ignore[union-attr]
        if self._collected is not None:
            self._collected.append(data)
        elif self.is_complete:
            self._last += data
        else:
            self._pass_noted(data, is_end)

    def _pass_noted(self, data: bytes, is_end: bool) -> None:
        self._hint = b""
        if is_end or self._last:
            return self._hold_back(data)
        stream, outlet = self.stream, self.outlet
        if stream is not None:
            data = stream.feed(data)
        if not data:
            return
        outlet.write(data)
        if isinstance(outlet, Direct) and outlet.is_chunked:
            self._pass_on = outlet.pass_on
            if stream is None:
                self._hint = _UNLIKELY
            elif stream.is_empty:
                self._hint = USAGE

    def _pass_chunk(self, content: bytes, chunk: bytes) -> None:
        """A chunk of a stream that has come whole. An event that the filter, if there is one, would
        not touch leaves in the chunk that it came in; with all else it is as with other bytes."""
        is_end = self.notes.note(content)  # type: ignore[union-attr]
        # (`find`, because `in` first tries whether it is given a number: twice as slow.)
        if is_end or content.find(self._hint) >= 0 or not content.endswith(b"\n\n"):
            self._pass_noted(content, is_end)
        else:
            self._pass_on(chunk)

    def _hold_back(self, data: bytes) -> None:
        """A client takes a stream's last event for its end: it gets that when we have noted it."""
        self._last += data
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_PATIENCE_S, self._finish)

    def _finish(self) -> None:
        self.is_complete = self.is_complete or bool(self._last)
        if not self.is_over:
            self.is_over = True
            self.on_over(self)

    def _changed(self, content: bytes) -> bytes:
        """An answer in one piece that is not sent as it came."""
        if self.outlet.is_started:  # as a stream, by comments
            return errors.as_event(content, self.request.path)
        if self.status == 200:
            content = with_cache_words(content)
        self.outlet.start(self.status, self._headers, b"%d" % len(content))
        return content
