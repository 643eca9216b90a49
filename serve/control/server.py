"""The supervisor's side of `control.sock`: Starlette on uvicorn over a unix socket (0600)."""

import asyncio
import logging
import socket as sockets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serve.control.answers import as_json, asked_by, read_wish
from serve.control.desk import Desk
from serve.control.ledger_routes import ledger_routes
from serve.control.lock import owned
from serve.control.status import Status
from serve.errors import InhouseError, LedgerError, NotWritable
from serve.fleet import ModelStatus
from serve.roster import Roster
from serve.wire import to_wire

_logger = logging.getLogger(__name__)
# A reader that hears nothing for twice this long may take the supervisor for dead.
_KEEP_ALIVE_S = 5.0


class Fleet(Protocol):
    """What control asks of a fleet; see `serve.fleet.Fleet`."""

    async def load(self, name: str) -> ModelStatus: ...
    async def unload(self, name: str) -> None: ...
    def status(self) -> tuple[ModelStatus, ...]: ...
    def rosters(self) -> AsyncIterator[Roster]: ...


class ModelWish(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /load` and `POST /unload`."""

    model: str


class StopWish(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /stop`; `force`: do not wait for running requests."""

    force: bool = False


@asynccontextmanager
async def serve_control(
    socket: Path,
    fleet: Fleet,
    facts: Callable[[], Status],
    on_stop: Callable[[bool], None],
    desk: Desk | None = None,
    spool_key: bytes = b"",
) -> AsyncIterator[None]:
    """Answer at `socket` inside the block; leaving it ends every roster stream.

    `facts` is asked at each `GET /status` (its models are the fleet's); `on_stop(force)` must
    return at once. With a `desk`, the ledger is there too, and what changes anything is recorded
    or refused. `spool_key`: what gateways seal files and batches with, for as long as we live.
    Raises AlreadyRunning if another supervisor owns the socket, NotWritable if it
    cannot be made.
    """
    with owned(socket):
        listener = _listen(socket)
        closing = asyncio.Event()
        acts = _Acts(fleet, on_stop, desk, spool_key)
        server = _Server(_config(_app(fleet, facts, acts, closing)))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            closing.set()
            server.should_exit = True
            await task
            socket.unlink(missing_ok=True)


class _Acts:
    """The routes that change something."""

    def __init__(
        self, fleet: Fleet, on_stop: Callable[[bool], None], desk: Desk | None, spool_key: bytes
    ) -> None:
        self._fleet, self._on_stop, self._desk = fleet, on_stop, desk
        self._spool_key = spool_key

    def routes(self) -> list[Route]:
        more = ledger_routes(self._desk) if self._desk else []
        return [
            Route("/load", self._load, methods=["POST"]),
            Route("/unload", self._unload, methods=["POST"]),
            Route("/stop", self._stop, methods=["POST"]),
            Route("/spool-key", self._give_spool_key),
            *more,
        ]

    async def _give_spool_key(self, request: Request) -> Response:
        return Response(self._spool_key, media_type="application/octet-stream")

    async def _load(self, request: Request) -> Response:
        model = (await read_wish(request, ModelWish)).model
        async with self._recorded(request, "model.load", model):
            return as_json(await self._fleet.load(model))

    async def _unload(self, request: Request) -> Response:
        model = (await read_wish(request, ModelWish)).model
        async with self._recorded(request, "model.unload", model):
            await self._fleet.unload(model)
        return as_json(None)

    async def _stop(self, request: Request) -> Response:
        force = (await read_wish(request, StopWish)).force
        try:
            async with self._recorded(request, "serve.stop"):
                pass
        except LedgerError as error:
            if not force:  # else nothing could be stopped while the disk is full
                raise
            _logger.error("stopped without a record: %s", error)
        self._on_stop(force)
        return as_json(None)

    def _recorded(
        self, request: Request, action: str, object: str = ""
    ) -> AbstractAsyncContextManager[None]:
        if self._desk is None:
            return nullcontext()
        return self._desk.recorded(action, object, asked_by(request))


def _app(
    fleet: Fleet, facts: Callable[[], Status], acts: _Acts, closing: asyncio.Event
) -> Starlette:
    async def status(_: Request) -> Response:
        return as_json(replace(facts(), models=fleet.status()))

    async def roster(_: Request) -> Response:
        lines = _lines(fleet.rosters(), closing)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    routes = [Route("/status", status), Route("/roster", roster), *acts.routes()]
    return Starlette(routes=routes, exception_handlers={InhouseError: _refuse})


async def _lines(rosters: AsyncIterator[Roster], closing: asyncio.Event) -> AsyncIterator[bytes]:
    """Each roster as a line, blank lines while there is none, until `closing`."""
    closed = asyncio.create_task(closing.wait())
    upcoming = asyncio.ensure_future(anext(rosters))
    try:
        while True:
            await asyncio.wait(
                {upcoming, closed}, timeout=_KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED
            )
            if upcoming.done():
                yield upcoming.result().to_line()
                upcoming = asyncio.ensure_future(anext(rosters))
            elif closed.done():
                return
            else:
                yield b"\n"
    finally:
        for task in (closed, upcoming):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """Every error of ours is told as it is; the status says no more than that it is one."""
    return JSONResponse(to_wire(error) if isinstance(error, InhouseError) else {}, 409)


def _listen(path: Path) -> sockets.socket:
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise NotWritable(str(path), error.strerror or str(error)) from error
    return listener


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=2,
    )


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the supervisor has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
