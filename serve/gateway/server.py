"""The life of a gateway process: wait for a roster, serve, follow the rosters, drain, leave."""

import asyncio
import contextlib
import gc
import logging
import math
import resource
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn
import uvloop

from serve.errors import ControlLost, NotRunning
from serve.gateway.app import Gateway
from serve.gateway.config import Config
from serve.gateway.front import DirectProtocol
from serve.gateway.known import KnownHeads
from serve.gateway.memory import keep_small
from serve.gateway.protocol import sweep
from serve.gateway.served import Served
from serve.gateway.tls import certificates
from serve.roster import Roster, follow

_logger = logging.getLogger(__name__)
_KEEP_ALIVE_S = 75  # longer than clients keep idle connections, so that theirs are not cut
_GC_THRESHOLD = 50_000
_FIRST_RETRY_S, _LAST_RETRY_S = 0.05, 0.5


def run(config: Config) -> None:
    """Serve until SIGTERM, or until the supervisor has been gone for `config.grace_s`."""
    # What is there now stays; what a request leaves behind is no cycle, and is seldom looked for.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each request needs two
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config))


async def _serve(config: Config) -> None:
    served = Served(Roster())
    gateway = Gateway(config, served)
    settings = _uvicorn_config(config, gateway)
    tls = certificates(config)
    if tls is not None:
        settings.load()
        settings.ssl = tls.context
    server = _Server(settings)
    is_told = asyncio.Event()

    async def follow_rosters() -> None:
        try:
            async for roster in _rosters(config.control, config.grace_s):
                served.update(roster)
                is_told.set()
        finally:
            server.should_exit = True
            is_told.set()

    tasks = [asyncio.create_task(follow_rosters())]
    await is_told.wait()  # before, we do not know who may enter; callers wait in the backlog
    if not server.should_exit:
        tasks.append(asyncio.create_task(sweep(server.server_state.connections)))
        server.batches = asyncio.create_task(gateway.batches.run(served, gateway.relay.carry))
        tasks.append(server.batches)
        tasks.append(asyncio.create_task(gateway.probes.show()))
        tasks.append(asyncio.create_task(keep_small()))
        if tls is not None:
            tasks.append(asyncio.create_task(tls.keep_fresh()))
        await server.serve([socket.socket(fileno=config.fd)])
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    gateway.close()


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


def _uvicorn_config(config: Config, gateway: Gateway) -> uvicorn.Config:
    class Timed(DirectProtocol):
        __slots__ = ()
        front = gateway
        heads = KnownHeads()
        head_timeout_s = config.head_timeout_s
        body_timeout_s = config.body_timeout_s

    return uvicorn.Config(
        gateway,
        http=Timed,
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

    batches: asyncio.Task[None] | None = None  # make requests of their own

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.batches is not None:
            self.batches.cancel()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
