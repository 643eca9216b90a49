"""The life of a gateway process: wait for a roster, serve, follow the rosters, drain, leave."""

import asyncio
import contextlib
import logging
import math
import resource
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.errors import ControlLost, NotRunning
from serve.gateway.app import Gateway
from serve.gateway.config import Config
from serve.gateway.served import Served
from serve.roster import Roster, follow

_logger = logging.getLogger(__name__)
_MAX_HEAD_BYTES = 64 * 1024
_KEEP_ALIVE_S = 75  # longer than clients keep idle connections, so that theirs are not cut
_FIRST_RETRY_S, _LAST_RETRY_S = 0.05, 0.5


def run(config: Config) -> None:
    """Serve until SIGTERM, or until the supervisor has been gone for `config.grace_s`."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each request needs two
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config))


async def _serve(config: Config) -> None:
    served = Served(Roster())
    server = _Server(_uvicorn_config(config, served))
    is_told = asyncio.Event()

    async def follow_rosters() -> None:
        try:
            async for roster in _rosters(config.control, config.grace_s):
                served.update(roster)
                is_told.set()
        finally:
            server.should_exit = True
            is_told.set()

    following = asyncio.create_task(follow_rosters())
    await is_told.wait()  # before, we do not know who may enter; callers wait in the backlog
    if not server.should_exit:
        await server.serve([socket.socket(fileno=config.fd)])
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


async def _rosters(control: Path, grace_s: float) -> AsyncIterator[Roster]:
    """Every roster. Ends when nobody has given one for `grace_s`."""
    loop = asyncio.get_running_loop()
    lost_at, retry_s = loop.time(), _FIRST_RETRY_S
    while True:
        try:
            async for roster in follow(control):
                lost_at, retry_s = math.inf, _FIRST_RETRY_S
                yield roster
        except (ControlLost, NotRunning) as error:
            if lost_at == math.inf:
                _logger.warning("the supervisor is gone: %s", error)
            lost_at = min(lost_at, loop.time())
        if loop.time() - lost_at > grace_s:
            _logger.error("no supervisor within %g s: leaving", grace_s)
            return
        await asyncio.sleep(retry_s)
        retry_s = min(2 * retry_s, _LAST_RETRY_S)


def _uvicorn_config(config: Config, served: Served) -> uvicorn.Config:
    return uvicorn.Config(
        Gateway(served, config.max_body),
        http=_BoundedHead,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(config.drain_s),
    )


class _Server(uvicorn.Server):
    """uvicorn's server, but a drain that a signal asked for is a success, not a death by it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


class _BoundedHead(HttpToolsProtocol):
    """uvicorn's protocol with a limit on the head of a request, of which it keeps every byte."""

    _head_bytes = 0
    _is_in_head = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes, self._is_in_head = 0, True

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("Request head too large.")
