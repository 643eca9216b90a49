"""The supervisor: every room put together, started in order and ended in order."""

import asyncio
import os
import resource
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import httpx

from serve import __version__
from serve.catalog import Catalog, ModelSpec
from serve.cli import live, machine, output, rooms
from serve.cli.bookkeeping import Bookkeeping, has_keys, open_books
from serve.cli.front import gateway_config
from serve.cli.listening import listen, url
from serve.cli.locked import wished_specs
from serve.cli.planning import settled
from serve.cli.progress import progress
from serve.cli.threads import DaemonThreads
from serve.control import Status, serve_control
from serve.engine import EnginePool, PoolConfig
from serve.errors import GatewayDied
from serve.fleet import Fleet, FleetConfig, GatewayPool
from serve.gateway import certificates, parse_networks
from serve.ledger import Books
from serve.lock import Lock
from serve.settings import Settings, without_secrets
from serve.store import Store
from serve.units import show_seconds

_GATEWAY_READY_S = 30.0
_GATEWAY_POLL_S = 0.05
_GATEWAY_TRIES = 3
_SPOOL_KEY_BYTES = 32
# A gateway ends its drain by itself, and tells its clients; only then it may be killed.
_LAST_WORDS_S = 2.0


def run(
    settings: Settings,
    names: tuple[str, ...],
    ready: Callable[[Status], None],
    lock: Lock | None = None,
) -> None:
    """Serve `names` until SIGINT, SIGTERM or `inhouse stop`; `ready` is called once they answer.
    With a `lock`, nothing but what it names, now and later.

    What can be known to fail is found out first: names, lock, runtime, port, another supervisor.
    A first load that fails ends it all and is raised.
    """
    _leave_no_core()
    catalog, store = rooms.catalog(settings), rooms.store(settings, lock)
    foreign = foreign_names(settings)
    own = tuple(name for name in names if name.casefold() not in foreign)
    specs = tuple(wished_specs(catalog, own, lock)) if own or not names else ()
    wanted = (*(spec.name for spec in specs), *(name for name in names if name not in own))
    engines = _pool_config(settings) if specs else None
    server = settings.server
    certificates(server)  # what gateways could not use ends the start here, and says why
    parse_networks(server.trusted_proxies)
    books = open_books(settings)
    with listen(server.host, server.port, has_keys(settings, books)) as listener:
        supervisor = _Supervisor(settings, catalog, store, engines, listener, books)
        asyncio.run(supervisor.run(specs, wanted, ready))


def _leave_no_core() -> None:
    """A core file has in it what somebody has typed; children inherit this.

    Where cores are piped to a program (systemd-coredump, apport), Linux asks no limit of 0; of 1
    byte it does, and a file is not begun for so little either.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 1 if most else 0  # what is 0 cannot be raised
    resource.setrlimit(resource.RLIMIT_CORE, (least, least))


def foreign_names(settings: Settings) -> frozenset[str]:
    """Every name of a model that somebody else serves, in lower case."""
    return frozenset(
        name.casefold()
        for model in settings.models
        if model.urls
        for name in (model.name, *model.aliases)
    )


class _Stop:
    """The end, asked for once (drain first) or twice (at once)."""

    def __init__(self, drain_s: float) -> None:
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()
        self._drain_s = drain_s

    def ask(self, force: bool = False) -> None:
        if force or self.asked.is_set():
            self.forced.set()
        elif not self.asked.is_set():
            wait = show_seconds(self._drain_s)
            output.say(f"stopping; running requests have {wait}, Ctrl-C again ends them now")
        self.asked.set()


class _Supervisor:
    """One run: `run` read top to bottom is what happens, and backwards how it ends."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        store: Store,
        engines: PoolConfig | None,
        listener: socket.socket,
        books: Books,
    ) -> None:
        self._settings = settings
        self._runtime = engines.runtime.name if engines else ""
        self._listener = listener
        self._address = url(listener, is_tls=settings.server.tls_cert is not None)
        self._started_at = time.time()
        self._store = store
        self._pool = EnginePool(engines) if engines else None
        fleet = _fleet_config(settings, engines.runtime.vllm_version if engines else "")
        self._fleet = Fleet(fleet, catalog, store, self._pool, partial(machine.read, settings))
        self._gateways: GatewayPool | None = None
        self._books = Bookkeeping(settings, books, self._fleet.set_keys, self._fleet.energy)
        self._spool_key = secrets.token_bytes(_SPOOL_KEY_BYTES)  # nowhere but here

    async def run(
        self,
        specs: tuple[ModelSpec, ...],
        names: tuple[str, ...],
        ready: Callable[[Status], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(DaemonThreads())
        stop = _Stop(self._settings.server.drain)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, stop.ask)
        socket_path = rooms.control_socket(self._settings)
        desk = self._books.desk
        control = serve_control(
            socket_path, self._fleet, self._facts, stop.ask, desk, self._spool_key
        )
        async with control, self._pool or nullcontext():
            if self._pool is not None:
                self._pool.keep_spares()
            await self._books.begin()
            await self._fleet.adopt(names)
            gateways = self._gateways = self._start_gateways()
            background = asyncio.gather(self._books.run(), self._fleet.watch_energy())
            try:
                await _unless(stop.asked, self._make_ready(specs, names, ready))
                await stop.asked.wait()
            finally:
                self._fleet.refuse_new()
                self._listener.close()  # the gateways close theirs: who comes now is refused
                await _drain(gateways, self._settings.server.drain, stop.forced)
                background.cancel()
                await asyncio.gather(background, return_exceptions=True)
                await self._books.end()
                await self._fleet.close()

    async def _make_ready(
        self,
        specs: tuple[ModelSpec, ...],
        names: tuple[str, ...],
        ready: Callable[[Status], None],
    ) -> None:
        for spec in specs:
            await asyncio.to_thread(self._store.ready, spec, progress())
        with_what = f" with {self._runtime}" if self._runtime else ""
        output.say(f"starting {', '.join(names)}{with_what}")
        await asyncio.gather(*(self._fleet.load(name) for name in names))
        await self._gateway_answers()
        ready(replace(self._facts(), models=self._fleet.status()))

    def _start_gateways(self) -> GatewayPool:
        config = gateway_config(self._settings, self._listener, self._books.gateway_died)
        return GatewayPool(config, self._settings.server.gateways)

    async def _gateway_answers(self) -> None:
        """Wait until the gateway knows of the models. GatewayDied if it does not come up."""
        deadline_s = time.monotonic() + _GATEWAY_READY_S
        # It is our own, whoever its certificate is made out to.
        client = httpx.AsyncClient(trust_env=False, timeout=_GATEWAY_READY_S, verify=False)
        is_known_by_its_refusal = self._settings.server.tls_client_ca is not None
        async with client:
            while time.monotonic() < deadline_s and self._gateway_restarts() < _GATEWAY_TRIES:
                try:
                    answer = await client.get(f"{self._address}/ready")
                    if answer.is_success or not self._has_ready_model():
                        return
                except (httpx.ReadError, httpx.RemoteProtocolError) as error:
                    if is_known_by_its_refusal and "CERTIFICATE_REQUIRED" in str(error):
                        return
                except httpx.TransportError:
                    pass  # it died with our question; the next one takes it
                await asyncio.sleep(_GATEWAY_POLL_S)
        codes = [gateway.exit_code for gateway in self._facts().gateways if gateway.exit_code]
        log_path = rooms.log_dir(self._settings) / "gateway-0.log"
        raise GatewayDied(codes[0] if codes else 0, str(log_path))

    def _has_ready_model(self) -> bool:
        """False when all servers of somebody else's are away: those are waited for, for ever."""
        return any(model.state == "ready" for model in self._fleet.status())

    def _gateway_restarts(self) -> int:
        return sum(gateway.restarts for gateway in self._facts().gateways)

    def _facts(self) -> Status:
        return Status(
            pid=os.getpid(),
            version=__version__,
            started_at=self._started_at,
            address=self._address,
            runtime=self._runtime,
            isolation=self._settings.engine.isolation,
            gateways=self._gateways.status() if self._gateways else (),
        )


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do `work` to its end, or to where it is when `event` comes."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    for task in (working, waiting):
        task.cancel()
    await asyncio.wait({working, waiting})
    if not working.cancelled():
        working.result()


async def _drain(gateways: GatewayPool, drain_s: float, forced: asyncio.Event) -> None:
    draining, forcing = (
        asyncio.create_task(gateways.stop(drain_s + _LAST_WORDS_S)),
        asyncio.create_task(forced.wait()),
    )
    await asyncio.wait({draining, forcing}, return_when=asyncio.FIRST_COMPLETED)
    forcing.cancel()
    if not draining.done():
        draining.cancel()
        await gateways.stop(0)


def _pool_config(settings: Settings) -> PoolConfig:
    engine = settings.engine
    return PoolConfig(
        runtime=live.runtimes(settings).find(live.device(settings)),
        run_dir=settings.paths.run,
        log_dir=rooms.log_dir(settings),
        cache_dir=settings.paths.home / "cache",
        isolation=engine.isolation,
        spares=engine.spares,
        compile=engine.compile,
        start_timeout_s=engine.start_timeout,
        grace_s=engine.grace,
        extra_args=engine.args,
        environ=without_secrets(os.environ),
    )


def _fleet_config(settings: Settings, engine_version: str) -> FleetConfig:
    return FleetConfig(
        wishes=replace(settled(settings), engine_version=engine_version),
        keys=(),  # nobody, until the books are open
        drain_s=settings.server.drain,
        book=rooms.book(settings),
        engine_args=settings.engine.args,
        lessons=rooms.lessons(settings),
        models=settings.models,
        tenants=settings.tenants,
    )
