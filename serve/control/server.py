"""The supervisor's side of `control.sock`: Starlette on uvicorn over a unix socket (0600)."""

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serve.control.lock import owned
from serve.control.status import Status
from serve.errors import BadRequest, InhouseError, NotWritable
from serve.fleet import ModelStatus
from serve.roster import Roster
from serve.wire import to_wire

_Wish = TypeVar("_Wish", "ModelWish", "StopWish")
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
    socket: Path, fleet: Fleet, facts: Callable[[], Status], on_stop: Callable[[bool], None]
) -> AsyncIterator[None]:
    """Answer at `socket` inside the block; leaving it ends every roster stream.

    `facts` is asked at each `GET /status` (its models are the fleet's); `on_stop(force)` must
    return at once. Raises AlreadyRunning if another supervisor owns the socket, NotWritable if it
    cannot be made.
    """
    with owned(socket):
        listener = _listen(socket)
        closing = asyncio.Event()
        server = _Server(_config(_app(fleet, facts, on_stop, closing)))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            closing.set()
            server.should_exit = True
            await task
            socket.unlink(missing_ok=True)


def _app(
    fleet: Fleet,
    facts: Callable[[], Status],
    on_stop: Callable[[bool], None],
    closing: asyncio.Event,
) -> Starlette:
    # Not FastAPI: importing it costs a third of a second at every start of the command line.
    async def status(_: Request) -> Response:
        return _json(replace(facts(), models=fleet.status()))

    async def roster(_: Request) -> Response:
        lines = _lines(fleet.rosters(), closing)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def load(request: Request) -> Response:
        return _json(await fleet.load((await _wish(request, ModelWish)).model))

    async def unload(request: Request) -> Response:
        await fleet.unload((await _wish(request, ModelWish)).model)
        return _json(None)

    async def stop(request: Request) -> Response:
        on_stop((await _wish(request, StopWish)).force)
        return _json(None)

    return Starlette(
        routes=[
            Route("/status", status),
            Route("/roster", roster),
            Route("/load", load, methods=["POST"]),
            Route("/unload", unload, methods=["POST"]),
            Route("/stop", stop, methods=["POST"]),
        ],
        exception_handlers={InhouseError: _refuse},
    )


async def _wish(request: Request, kind: type[_Wish]) -> _Wish:
    """The body, parsed; BadRequest if it is not what the route takes."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.MsgspecError as error:
        raise BadRequest(str(error)) from error


def _json(answer: object) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")


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
