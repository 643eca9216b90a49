"""The supervisor's side of `control.sock`: FastAPI on uvicorn over a unix socket (0600)."""

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict

from serve.control.lock import owned
from serve.control.status import Status
from serve.errors import BadRequest, InhouseError, NotWritable, to_wire
from serve.fleet import ModelStatus
from serve.roster import Roster

# A reader that hears nothing for twice this long may take the supervisor for dead.
_KEEP_ALIVE_S = 5.0


class Fleet(Protocol):
    """What control asks of a fleet; see `serve.fleet.Fleet`."""

    async def load(self, name: str) -> ModelStatus: ...
    async def unload(self, name: str) -> None: ...
    def status(self) -> tuple[ModelStatus, ...]: ...
    def rosters(self) -> AsyncIterator[Roster]: ...


class ModelWish(BaseModel):
    """Body of `POST /load` and `POST /unload`."""

    model_config = ConfigDict(extra="forbid")
    model: str


class StopWish(BaseModel):
    """Body of `POST /stop`; `force`: do not wait for running requests."""

    model_config = ConfigDict(extra="forbid")
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
) -> FastAPI:
    app = FastAPI(title="Inhouse control", openapi_url=None)
    app.add_exception_handler(InhouseError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_body)

    @app.get("/status")
    async def status() -> Status:
        return replace(facts(), models=fleet.status())

    @app.get("/roster")
    async def roster() -> StreamingResponse:
        lines = _lines(fleet.rosters(), closing)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    @app.post("/load")
    async def load(wish: ModelWish) -> ModelStatus:
        return await fleet.load(wish.model)

    @app.post("/unload")
    async def unload(wish: ModelWish) -> None:
        await fleet.unload(wish.model)

    @app.post("/stop")
    async def stop(wish: StopWish) -> None:
        on_stop(wish.force)

    return app


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


async def _refuse_body(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(to_wire(BadRequest(str(error))), 422)


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


def _config(app: FastAPI) -> uvicorn.Config:
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
