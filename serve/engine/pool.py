"""All engines of this machine and the spares: started here, adopted here, gone when we leave."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from weakref import WeakSet

import psutil

from serve.engine.command import Launch, Mode, build_command, host_env
from serve.engine.compiling import Compiler, Rehearsal
from serve.engine.guarding import (
    Guard,
    Orders,
    engines_folder,
    new_folder,
    scratch_folder,
)
from serve.engine.isolation import Isolation, find_isolation
from serve.engine.life import Engine, Record, read_record, until_ready, write_record
from serve.engine.measured import measured_in, to_profile
from serve.engine.orphans import MARKER, Home, end_orphans, strangers
from serve.engine.runtime import Runtime
from serve.engine.spares import Spares
from serve.errors import NotWritable, StartFailed
from serve.hardware import Gpu
from serve.log import fields
from serve.plan import Plan
from serve.profiles import Profile
from serve.shipped import shipped

_LOGS_KEPT = 5  # per replica

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """`run_dir`: sockets (short paths!). `spares` None: one where there is memory for it.

    `environ`: the launcher's own environment, of which `command.py` passes on what engines need.
    `host`: the program that becomes the engine, None = `inside/host.py` by the runtime's Python.
    """

    runtime: Runtime
    run_dir: Path
    log_dir: Path
    cache_dir: Path
    isolation: Literal["auto", "required", "off"] = "auto"
    spares: int | None = None
    compile: Literal["auto", "off"] = "auto"
    start_timeout_s: float = 900.0
    grace_s: float = 5.0
    extra_args: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    host: tuple[str, ...] | None = None


class EnginePool:
    """Use as an async context manager; at its end every engine and every spare is gone.

    Entering raises IsolationUnavailable when isolation is required and not to be had.
    """

    def __init__(
        self,
        config: PoolConfig,
        free_bytes: Callable[[], int] = lambda: psutil.virtual_memory().available,
    ) -> None:
        self._config = config
        self._isolation = Isolation()
        self._spares = Spares(self._new_spare, config.spares, free_bytes)
        self._keeper: asyncio.Task[None] | None = None
        self._is_over = False
        self._may_compile = config.compile == "auto"
        self._compiler = Compiler(
            config.runtime, config.cache_dir, config.extra_args, self._new_rehearsal, free_bytes
        )
        # Weak: the event loop holds them while they live.
        self._engines: WeakSet[Engine] = WeakSet()
        self._guards: WeakSet[Guard] = WeakSet()

    async def __aenter__(self) -> Self:
        config = self._config
        self._isolation = await asyncio.to_thread(find_isolation, config.isolation)
        if self._isolation.level == "off" and config.isolation != "off":
            _log.warning("engines can reach the network: %s", self._isolation.problem)
        for folder in (engines_folder(config.run_dir), config.log_dir, config.cache_dir):
            _make(folder)
        self._drop_host_logs()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        self._spares.close()
        await self._compiler.close()
        await asyncio.gather(*(engine.stop(0) for engine in self._engines))
        await asyncio.gather(*(guard.end() for guard in self._guards))
        self._drop_host_logs()

    @property
    def _home(self) -> Home:
        return Home(self._config.run_dir.resolve(), self._config.log_dir.resolve())

    @property
    def isolation(self) -> Isolation:
        """What engines of this pool are kept from."""
        return self._isolation

    @property
    def spares(self) -> int:
        """How many hosts wait, ready to serve."""
        return self._spares.ready

    def keep_spares(self) -> None:
        """Begin to keep them, in the background."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._spares.keep())

    async def start(self, plan: Plan, replica: str) -> Engine:
        """A ready engine. Cancel it to stop while starting; nothing is left then either.

        `replica` names the log. Raises StartFailed, StartTimedOut, NotWritable, SettingsError.
        """
        with self._spares.during_start():
            mode = self._compiler.mode(plan) if self._may_compile else "eager"
            try:
                engine = await self._start(plan, replica, mode)
            except StartFailed as error:
                if mode == "eager" or plan.device == "cuda":
                    raise
                facts = fields(replica=replica, cause=error.cause)
                _log.warning("the compiled form does not start, once more without: %s", facts)
                self._compiler.forget(plan)
                return await self._start(plan, replica, "eager")
        if self._may_compile:
            self._compiler.prepare_later(plan)
        return engine

    def failed_profile(self, plan: Plan, error: StartFailed) -> Profile | None:
        """What a start that failed has measured before; None: nothing that helps a plan."""
        found = measured_in(Path(error.log_path))
        profile = to_profile(found, plan.key, plan, time.time(), None) if plan.key else None
        return profile if profile is not None and profile.available_kv_bytes is not None else None

    async def adopt(self) -> tuple[Engine, ...]:
        """The ready engines that a supervisor before us left behind; all else of it is ended, and
        what is left of engines whose guard was killed."""
        folders = sorted(engines_folder(self._config.run_dir).iterdir())
        engines = await asyncio.gather(*(self._adopt(folder) for folder in folders))
        for orphan in await end_orphans(self._home):
            facts = fields(pid=orphan.pid, command=orphan.command, bytes=orphan.rss_bytes)
            _log.warning("ended a process that an engine of ours had left behind %s", facts)
        return tuple(engine for engine in engines if engine is not None)

    def strangers(self, gpus: Sequence[Gpu]) -> tuple[str, ...]:
        """Who else holds memory of these cards, one sentence each."""
        return strangers(gpus, self._home)

    async def _adopt(self, folder: Path) -> Engine | None:
        record = read_record(folder)
        guard = await Guard.find(folder)
        if guard is None:
            return None
        if record is None:
            await guard.end()
            return None
        _log.info("adopted an engine: %s", fields(replica=record.replica, pid=guard.pid))
        return self._engine(record, guard)

    async def _start(self, plan: Plan, replica: str, mode: Mode) -> Engine:
        started_at, begun = time.time(), time.monotonic()
        guard = self._spares.take() or await self._new_guard(self._host_argv())
        try:
            log_path = self._name_log(guard, replica)
            command = build_command(plan, self._config.runtime, self._launch(guard, mode))
            guard.go(command.argv, command.env)
            model, timeout_s = plan.subject.spec.name, self._config.start_timeout_s
            await until_ready(guard, model, log_path, timeout_s)
            record = Record(
                replica=replica,
                plan=plan,
                mode=command.mode,
                isolation=self._isolation.level,
                log_path=log_path,
                started_at=started_at,
                ready_after_s=time.monotonic() - begun,
            )
            write_record(record, guard.folder)
        except BaseException:
            await guard.end()
            raise
        return self._engine(record, guard)

    def _engine(self, record: Record, guard: Guard) -> Engine:
        engine = Engine(record, guard)
        self._engines.add(engine)
        return engine

    def _launch(self, guard: Guard, mode: Mode) -> Launch:
        return Launch(
            socket=guard.socket,
            scratch_dir=scratch_folder(guard.folder),
            cache_dir=self._config.cache_dir,
            mode=mode,
            extra_args=self._config.extra_args,
            inherited=self._config.environ,
        )

    async def _new_spare(self) -> Guard:
        return await self._new_guard(self._host_argv(), is_background=True)

    async def _new_rehearsal(self, prefix: tuple[str, ...]) -> Rehearsal:
        guard = await self._new_guard((*prefix, *self._host_argv()))
        return Rehearsal(guard, self._name_log(guard, "compiling"))

    async def _new_guard(self, argv: tuple[str, ...], is_background: bool = False) -> Guard:
        config, folder = self._config, new_folder(self._config.run_dir)
        guard = await Guard.start(
            Orders(
                folder=folder,
                log_path=self._host_log(folder),
                namespaces=self._isolation.namespaces,
                argv=argv,
                env=host_env(
                    config.runtime, scratch_folder(folder), config.cache_dir, config.environ
                )
                | {MARKER: str(folder)},
                grace_s=config.grace_s,
                is_background=is_background,
            )
        )
        self._guards.add(guard)
        if self._is_over:  # we left while it came
            await guard.end()
        return guard

    def _host_argv(self) -> tuple[str, ...]:
        if self._config.host is not None:
            return self._config.host
        runtime = self._config.runtime
        leash = () if self._isolation.level == "full" else ("--leash",)
        return (str(runtime.python), str(shipped("inside/host.py")), runtime.device, *leash)

    def _name_log(self, guard: Guard, replica: str) -> Path:
        """A host's log becomes its engine's, without the host noticing; the oldest go."""
        folder, name = self._config.log_dir, re.sub(r"[^\w.-]", "_", replica)
        for old in sorted(folder.glob(f"{name}@*.log"))[: 1 - _LOGS_KEPT]:
            old.unlink(missing_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        path = folder / f"{name}@{stamp}-{guard.folder.name}.log"
        with contextlib.suppress(FileNotFoundError):  # the host is gone; the start will say so
            self._host_log(guard.folder).rename(path)
        return path

    def _drop_host_logs(self) -> None:
        """Of hosts that never became an engine."""
        for log in self._config.log_dir.glob("host-*.log"):
            log.unlink(missing_ok=True)

    def _host_log(self, folder: Path) -> Path:
        return self._config.log_dir / f"host-{folder.name}.log"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise NotWritable(str(folder), error.strerror or "") from error
