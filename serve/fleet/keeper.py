"""One replica's coroutine: start its engine, watch it, start it again, give it up."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from serve.catalog import ModelSpec
from serve.engine import Engine
from serve.errors import (
    EngineDied,
    InhouseError,
    LockMismatch,
    ModelNotServed,
    NotAllowed,
    Quarantined,
    StartFailed,
    UnsafeWeights,
    WeightsDamaged,
)
from serve.fleet.decide import Quarantine, Restart, after_death
from serve.log import fields
from serve.plan import Plan
from serve.roster import Replica, State
from serve.wire import to_wire

logger = logging.getLogger(__name__)

# What keeps an engine from being started again, and will tomorrow: somebody has to act.
_NO_CURE_IN_TIME = (WeightsDamaged, UnsafeWeights, NotAllowed, LockMismatch)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One replica of a model, as `ps` shows it. Times are unix seconds, sizes tokens.

    `problem`: the last thing that went wrong, as `errors.to_wire` writes it. `note`: what the
    operator should know of the plan, a context that was shortened for instance. `address`: where
    a server of somebody else is. `gpus`: UUIDs of its cards.
    """

    name: str
    state: State
    replica: str
    pid: int | None = None
    socket: str | None = None
    log_path: str | None = None
    mode: str | None = None
    isolation: str | None = None
    context_tokens: int | None = None
    kv_tokens: int | None = None
    ready_after_s: float | None = None
    started_at: float | None = None
    restarts: int = 0
    problem: dict[str, Any] | None = None
    note: str | None = None
    address: str | None = None
    gpus: tuple[str, ...] = ()


class Keeper:
    """Keeps one replica of a model running. `_run` is the only writer of `status`.

    `prepare` makes the plan (pulling the weights where needed), `start` gives a ready engine or
    raises EngineError, `changed` is called after each change of `status`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        replica: str,
        prepare: Callable[[], Awaitable[Plan]],
        start: Callable[[Plan], Awaitable[Engine]],
        changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.status = ModelStatus(spec.name, "starting", replica)
        self._prepare = prepare
        self._start = start
        self._changed = changed
        self._engine: Engine | None = None
        self._settled = asyncio.Event()
        self._task = asyncio.create_task(self._keep())

    @property
    def is_over(self) -> bool:
        """The coroutine ended by itself: the first start failed."""
        return self._task.done()

    async def settled(self) -> ModelStatus:
        """Wait until it is ready or given up; raises what kept it from being ready."""
        await self.tried()
        if self._task.cancelled():
            raise ModelNotServed(self.spec.name)  # unloaded while we waited
        if self._task.done():
            self._task.result()
        return self.status

    async def tried(self) -> None:
        """Wait until the first start is over, well or not."""
        waiting = asyncio.create_task(self._settled.wait())
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def stop(self, grace_s: float) -> None:
        """End the coroutine and its engine, which has `grace_s` to finish what it is answering."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._engine is not None:
            await self._engine.stop(grace_s)

    def replica(self) -> Replica | None:
        """This one as the roster shows it; None while it is not ready."""
        engine = self._engine
        if engine is None or self.status.state != "ready":
            return None
        return Replica(
            id=self.status.replica,
            address=f"unix:{engine.socket}",
            kv_tokens=engine.plan.kv_tokens,
            slots=engine.plan.max_num_seqs or 0,
            epoch=int(engine.started_at),
        )

    async def _keep(self) -> None:
        try:
            await self._run()
        except InhouseError as error:
            # In the log it is told by who waits for it.
            problem = to_wire(error)
            self.status = replace(self.status, state="quarantined", problem=problem)
            self._changed()
            raise

    async def _run(self) -> None:
        plan = await self._prepare()
        deaths_s: list[float] = []
        while True:
            problem = await self._one_life(plan)
            deaths_s.append(time.monotonic())
            if self._engine is not None:
                plan = self._engine.plan  # it may have become another one while it started
            self._engine = None
            if isinstance(problem, _NO_CURE_IN_TIME):
                self._tell("quarantined", problem)
                await asyncio.Event().wait()
            match after_death(deaths_s, time.monotonic()):
                case Restart(delay_s=delay_s):
                    restarts = self.status.restarts + 1
                    self._tell("restarting", problem, restarts=restarts)
                    await asyncio.sleep(delay_s)
                case Quarantine(deaths=deaths):
                    cause = problem.cause if isinstance(problem, StartFailed) else str(problem)
                    self._tell("quarantined", Quarantined(self.spec.name, deaths, cause))
                    await asyncio.Event().wait()

    async def _one_life(self, plan: Plan) -> InhouseError:
        """From start to death; what it died of. A first start that fails ends the coroutine."""
        try:
            engine = await self._start(plan)
        except InhouseError as error:
            if not self._settled.is_set():
                raise
            return error
        self._engine = engine
        self.status = replace(
            self.status, pid=engine.pid, socket=str(engine.socket), log_path=str(engine.log_path),
            mode=engine.mode, isolation=engine.isolation, ready_after_s=engine.ready_after_s,
            started_at=engine.started_at, context_tokens=engine.plan.context_tokens,
            kv_tokens=engine.plan.kv_tokens, note=engine.plan.note, gpus=engine.plan.gpu_uuids,
        )  # fmt: skip
        self._tell("ready", None)
        self._settled.set()
        died = await engine.ended()
        return died or EngineDied(self.spec.name, None, str(engine.log_path))

    def _tell(
        self, state: State, problem: InhouseError | None, restarts: int | None = None
    ) -> None:
        self.status = replace(
            self.status,
            state=state,
            problem=to_wire(problem) if problem else None,
            restarts=self.status.restarts if restarts is None else restarts,
            pid=self.status.pid if state == "ready" else None,
            socket=self.status.socket if state == "ready" else None,
        )
        facts = fields(name=self.status.replica, **({"problem": problem} if problem else {}))
        logger.log(logging.ERROR if problem else logging.INFO, "replica is %s %s", state, facts)
        self._changed()
