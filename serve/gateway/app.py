"""The outermost ASGI callable: finds the route, asks the door, and hands the request on."""

import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path

from starlette.types import Message, Receive, Scope, Send

from serve.errors import BodyTooLarge, InhouseError, MethodNotAllowed, RouteNotFound
from serve.gateway import errors, openapi, routes
from serve.gateway.admin import answer_admin
from serve.gateway.batches import Batches
from serve.gateway.body import read_body
from serve.gateway.books import Books, Tracing
from serve.gateway.config import Config
from serve.gateway.direct import EXTENSION, Direct
from serve.gateway.door import Caller, Door
from serve.gateway.exchange import Request, answer
from serve.gateway.known import KnownHead
from serve.gateway.metrics import Metrics
from serve.gateway.ollama import Ollama
from serve.gateway.pool import Pool
from serve.gateway.probes import Probes
from serve.gateway.relay import Relay
from serve.gateway.routes import Route
from serve.gateway.salt import Salts
from serve.gateway.served import Served
from serve.journal import Journal
from serve.limits import Admission, Table
from serve.quota import Tenant

_logger = logging.getLogger(__name__)
_STRANGER = Tenant("")
_SECRET_BYTES = 32

Part = Callable[[Request], Awaitable[None]]


class Gateway:
    """One per process."""

    def __init__(self, config: Config, served: Served) -> None:
        self.most_body_bytes = config.max_body
        self.journal = Journal(config.journal_folder, config.slot, config.commit)
        metrics, pool = Metrics(), Pool()
        self._traces = _traces(config)
        self._books = Books(self.journal, metrics, config.audit, self._traces)
        admission = Admission(Table(config.limits_file, config.slot), config.most_waiting)
        salts = Salts(_secret(config.secret_file))
        self.relay = Relay(config, served, pool, self._books, admission, salts)
        self.batches = Batches(config.spool_folder, config.control, self._read)
        self._door = Door(served, config.trusted_proxies)
        self._ollama = Ollama(served, self._read)
        self.probes = probes = Probes(config, served, pool, metrics)
        self._parts: dict[str, Part] = {
            "health": probes.health,
            "ready": probes.ready,
            "models": probes.models,
            "metrics": probes.metrics,
            "openapi": _show_openapi,
            "ollama": self._speak_ollama,
            "files": self.batches,
            "batches": self.batches,
            "admin": partial(answer_admin, control=config.control),
        }
        self._prefix = secrets.token_hex(6).encode()
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        peer = scope["client"]
        address = peer[0] if peer is not None else ""
        extensions = scope.get("extensions")
        if extensions is not None:
            send = extensions.get(EXTENSION, send)
        route = routes.find(scope["raw_path"])
        request = Request(
            scope["path"], headers, self._new_id(), receive, send, Caller(None, _STRANGER, address),
            scope["method"], scope["query_string"],
        )  # fmt: skip
        # Answers may take long: nothing is held that is only needed at the beginning.
        del scope, headers, extensions
        try:
            if route.scope is not None:
                request.caller = self._door.enter(request.headers, address, route.scope)
            await self._hand_on(request, route)
        except InhouseError as error:
            await self._refuse(request, route, error)

    def enter(
        self, direct: Direct, route: Route, headers: dict[bytes, bytes], peer: str
    ) -> Request | None:
        """A request for an engine, let in; None if it has been refused."""
        caller = Caller(None, _STRANGER, peer)
        request = Request(route.name, headers, self._new_id(), _nothing, direct, caller)
        try:
            if route.scope is not None:
                request.caller = self._door.enter(headers, peer, route.scope)
            if int(headers.get(b"content-length", b"0")) > self.most_body_bytes:
                raise BodyTooLarge(self.most_body_bytes)
        except InhouseError as error:
            self.refuse_directly(request, route, error)
            return None
        return request

    def take(self, direct: Direct, known: KnownHead, body: bytes, peer: str) -> None:
        """The same for a request that is here as a whole, with a head that is known."""
        route, caller = known.route, self._door.known(known)
        request = Request(
            route.name, known.headers, self._new_id(), _nothing, direct,
            caller or Caller(None, _STRANGER, peer), told=known.told,
        )  # fmt: skip
        try:
            if caller is None:
                request.caller = self._door.enter(known.headers, peer, "inference")
                self._door.remember(known, request.caller)
            if len(body) > self.most_body_bytes:
                raise BodyTooLarge(self.most_body_bytes)
            self.relay.begin(request, route, body)
        except InhouseError as error:
            self.refuse_directly(request, route, error)

    def carry(self, request: Request, route: Route, body: bytes) -> None:
        """Its body is here."""
        try:
            self.relay.begin(request, route, body)
        except InhouseError as error:
            self.refuse_directly(request, route, error)

    def refuse_directly(self, request: Request, route: Route, error: InhouseError) -> None:
        """Answer it with an error."""
        status, headers, content = self._refusal(request, route, error)
        direct = request.send
        assert isinstance(direct, Direct)
        headers.append((b"x-request-id", request.shown_id))
        direct.start(status, headers, b"%d" % len(content))
        direct.end(content)

    def close(self) -> None:
        """Nothing comes any more: write down what there is."""
        self.journal.close()
        if self._traces is not None:
            self._traces.close()

    async def _hand_on(self, request: Request, route: Route) -> None:
        if request.method not in route.methods:
            raise MethodNotAllowed(request.method, request.path)
        if route.target == "engine":
            return await self.relay(request, route)
        part = self._parts.get(route.target)
        if part is None:
            raise RouteNotFound(request.method, request.path)
        await part(request)

    async def _speak_ollama(self, request: Request) -> None:
        await self._ollama(request, self.relay.carry)

    async def _read(self, request: Request) -> bytes | None:
        """The body of a request for one of our parts; None if the client left meanwhile."""
        length = request.headers.get(b"content-length")
        return await read_body(request.receive, length, self.most_body_bytes)

    def _new_id(self) -> bytes:
        # Made by us: an engine keys its own state by it, so no client may choose one.
        return b"%b-%x" % (self._prefix, next(self._numbers))

    async def _refuse(self, request: Request, route: Route, error: InhouseError) -> None:
        status, headers, content = self._refusal(request, route, error)
        await answer(request, status, content, headers)

    def _refusal(
        self, request: Request, route: Route, error: InhouseError
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        status, headers, content = errors.answer(error, request.path)
        if status >= 500:
            _logger.warning("refused: %s", type(error).__name__)
        self._books.refused(request, route.name, status, errors.code(error))
        return status, [row for row in headers if row[0] != b"content-length"], content


async def _nothing() -> Message:
    raise NotImplementedError("past ASGI there are no messages")


async def _show_openapi(request: Request) -> None:
    await answer(request, 200, openapi.document(), [(b"content-type", b"application/json")])


def _traces(config: Config) -> Tracing | None:
    if config.traces_endpoint is None:
        return None
    from serve.gateway.traces import Traces  # takes a fifth of our memory

    return Traces(config.traces_endpoint, config.traces_sample)


def _secret(file: Path | None) -> bytes:
    return file.read_bytes() if file is not None else secrets.token_bytes(_SECRET_BYTES)
