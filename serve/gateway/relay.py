"""The way of one request to an engine and of its answer back, byte for byte."""

import asyncio
import logging
import time
from dataclasses import dataclass

from starlette.types import Receive, Send

from serve import log
from serve.errors import EngineGone, RequestError, ShuttingDown
from serve.gateway import errors
from serve.gateway.body import model_of, read_body, with_model
from serve.gateway.metrics import CLIENT_LEFT, Metrics, Series
from serve.gateway.served import DRAIN_RETRY_S, Served
from serve.gateway.upstream import Connection, Pool
from serve.roster import Chooser, Replica, ServedModel

_logger = logging.getLogger(__name__)

# What an engine is told of a request's head. Never keys, cookies or the client's host.
_FORWARDED = (b"content-type", b"accept", b"anthropic-version", b"anthropic-beta")
# Proxies between us and the client must neither hold back nor change a stream.
_STREAM_HEADERS = [(b"cache-control", b"no-cache, no-transform"), (b"x-accel-buffering", b"no")]


@dataclass(slots=True)
class Request:
    """One request that has been let in: where it goes, and the ways to and from its client."""

    path: str
    headers: dict[bytes, bytes]  # names in lower case
    id: bytes
    receive: Receive
    send: Send


class _Call:
    """A request on its way, and the one who watches for its client leaving."""

    __slots__ = (
        "body", "connection", "has_left", "head", "is_started", "is_stream", "last", "model",
        "request", "series", "started_at", "status",
    )  # fmt: skip

    def __init__(self, request: Request, model: ServedModel, body: bytes, series: Series) -> None:
        self.request = request
        self.model = model
        self.head = _head(request, len(body))
        self.body = body  # dropped when the answer's head is in: answers may take long
        self.series = series
        self.started_at = time.perf_counter()
        self.connection: Connection | None = None  # while an engine works on it
        self.has_left = False
        self.is_started = False  # the client has the head of an answer
        self.is_stream = False
        self.last = b""  # what the client was sent last
        self.status = CLIENT_LEFT

    async def watch(self) -> None:
        """Ends when the client leaves; also, by ASGI's rules, when its answer is complete."""
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        if self.connection is not None:
            self.connection.abort()


class Relay:
    """Carries requests to engines. Owns the leases: how many requests each replica works on."""

    def __init__(self, served: Served, pool: Pool, metrics: Metrics, max_body: int) -> None:
        self._served = served
        self._pool = pool
        self._metrics = metrics
        self._max_body = max_body
        self._chooser = Chooser()

    async def __call__(self, request: Request) -> None:
        """Answer one request; a RequestError only while nothing has been sent to the client."""
        call = await self._admit(request)
        if call is None:
            return
        call.series.running.inc()
        # Ends by itself with the answer; cancelling it on that way would double its cost.
        watch = asyncio.get_running_loop().create_task(call.watch())
        try:
            await self._try_replicas(call)
        except asyncio.CancelledError:  # the time to drain is over
            watch.cancel()
            await self._break_off(call, 503, ShuttingDown(DRAIN_RETRY_S))
        except BaseException:
            watch.cancel()
            raise
        finally:
            if call.connection is not None:
                call.connection.abort()
            self._record(call)

    async def _admit(self, request: Request) -> _Call | None:
        """Read the request and find its model; None if the client left meanwhile."""
        length = request.headers.get(b"content-length")
        body = await read_body(request.receive, length, self._max_body)
        if body is None:
            return None
        name = model_of(body)
        model = self._served.find(name)
        if name != model.name:
            body = with_model(body, model.name)
        return _Call(request, model, body, self._metrics.series(model.name, request.path))

    def _record(self, call: _Call) -> None:
        call.series.running.dec()
        call.series.duration.observe(time.perf_counter() - call.started_at)
        if call.status == CLIENT_LEFT:
            self._metrics.disconnects.labels(call.model.name).inc()
        if call.is_started or call.has_left:  # otherwise it is counted where it is refused
            call.series.count(call.status)

    async def _try_replicas(self, call: _Call) -> None:
        """Ask the best replica; another one only if nothing at all could be sent to it."""
        failed: frozenset[str] = frozenset()
        while (lease := self._chooser.pick(call.model, call.body, b"", failed)) is not None:
            replica = lease.replica
            try:
                connection = await self._ask(call, replica)
                if call.has_left:
                    return
                if connection is not None and connection.is_headed:
                    return await self._pass_on(call, connection)
            finally:
                lease.end()
            self._note_loss(call.model, replica)
            if connection is not None:
                break
            failed |= {replica.id}
        await self._break_off(call, 502, EngineGone(call.model.name, is_started=False))

    async def _ask(self, call: _Call, replica: Replica) -> Connection | None:
        """Send the request and wait for the answer's head. None: nobody listens there.

        An engine closes idle connections after some seconds, perhaps just now: one that was idle
        and ends without a single byte has not been asked, so a fresh one is.
        """
        connection = await self._pool.get(replica.address.removeprefix("unix:"))
        while connection is not None and not call.has_left:
            call.connection = connection
            connection.send(call.head, call.body)
            while not connection.is_headed and not connection.is_lost:
                await connection.changed()
            if connection.is_headed or connection.has_bytes or not connection.is_reused:
                return connection
            connection = await self._pool.get(replica.address.removeprefix("unix:"), is_fresh=True)
        call.connection = connection
        return connection

    async def _pass_on(self, call: _Call, connection: Connection) -> None:
        """Send the answer on as it comes: one write for each read, nothing parsed."""
        send = call.request.send
        call.series.first_byte.observe(time.perf_counter() - call.started_at)
        call.body = b""
        call.is_stream = connection.content_type.startswith(b"text/event-stream")
        headers = connection.headers
        headers.append((b"x-request-id", call.request.id))
        if call.is_stream:
            headers += _STREAM_HEADERS
        call.is_started = True
        await send({"type": "http.response.start", "status": connection.status, "headers": headers})
        while not connection.is_complete:
            if data := connection.take():
                call.last = data
                await send({"type": "http.response.body", "body": data, "more_body": True})
            elif not connection.is_lost:
                await connection.changed()
            elif call.has_left:
                return
            else:
                self._metrics.upstream_errors.labels(call.model.name).inc()
                gone = EngineGone(call.model.name, is_started=True)
                return await self._break_off(call, 502, gone)
        data = connection.take()
        call.connection = None
        connection.release()
        call.status = connection.status
        await send({"type": "http.response.body", "body": data, "more_body": False})

    async def _break_off(self, call: _Call, status: int, error: RequestError) -> None:
        """Give up without pretending success: by a refusal, if nothing was sent to the client.

        A stream that has begun ends with an error event. Anything else is left incomplete, and
        the server closes the connection on which that happens.
        """
        call.status = status
        if not call.is_started:
            raise error
        if call.is_stream:
            event = errors.event(error, call.request.path)
            separator = b"" if call.last.endswith(b"\n\n") or not call.last else b"\n\n"
            await call.request.send(
                {"type": "http.response.body", "body": separator + event, "more_body": False}
            )

    def _note_loss(self, model: ServedModel, replica: Replica) -> None:
        self._metrics.upstream_errors.labels(model.name).inc()
        _logger.warning("engine gone %s", log.fields(model=model.name, replica=replica.id))


def _head(request: Request, length: int) -> bytes:
    lines = [b"POST %b HTTP/1.1\r\nhost: engine\r\n" % request.path.encode()]
    for name in _FORWARDED:
        if (value := request.headers.get(name)) is not None:
            lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"content-length: %d\r\nx-request-id: %b\r\n\r\n" % (length, request.id))
    return b"".join(lines)
