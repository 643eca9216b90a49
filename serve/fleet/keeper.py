"""One model's coroutine: start its engine, watch it, start it again, give it up."""

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
from serve.roster import Replica, ServedModel, State
from serve.wire import to_wire

logger = logging.getLogger(__name__)

# What keeps an engine from being started again, and will tomorrow: somebody has to act.
_NO_CURE_IN_TIME = (WeightsDamaged, UnsafeWeights, NotAllowed, LockMismatch)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model of the fleet, as `ps` shows it. Times are unix seconds, sizes tokens.

    `problem`: the last thing that went wrong, as `errors.to_wire` writes it. `note`: what the
    operator should know of the plan, a context that was shortened for instance.
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


class Keeper:
    """Keeps one model served by one engine. `run` is the only writer of `status`.

    `prepare` makes the plan (pulling the weights where needed), `start` gives a ready engine or
    raises EngineError, `changed` is called after each change of `status`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        prepare: Callable[[], Awaitable[Plan]],
        start: Callable[[Plan], Awaitable[Engine]],
        changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.status = ModelStatus(spec.name, "starting", f"{spec.name}-0")
        self._prepare = prepare
        self._start = start
        self._changed = changed
        self._engine: Engine | None = None
        self._created = int(time.time())
        self._settled = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def is_over(self) -> bool:
        """The coroutine ended by itself: the first start failed."""
        return self._task.done()

    async def settled(self) -> ModelStatus:
        """Wait until the model is ready or given up; raises what kept it from being ready."""
        waiting = asyncio.create_task(self._settled.wait())
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.cancelled():
            raise ModelNotServed(self.spec.name)  # unloaded while we waited
        if self._task.done():
            self._task.result()
        return self.status

    async def stop(self, grace_s: float) -> None:
        """End the coroutine and its engine, which has `grace_s` to finish what it is answering."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._engine is not None:
            await self._engine.stop(grace_s)

    def served(self) -> ServedModel:
        """This model as the roster shows it."""
        ready = self.status.state == "ready" and self.status.socket is not None
        replicas = (Replica(self.status.replica, f"unix:{self.status.socket}"),) if ready else ()
        return ServedModel(
            name=self.spec.name,
            aliases=self.spec.aliases,
            state=self.status.state,
            context_tokens=self.status.context_tokens or self.spec.context_tokens,
            created=self._created,
            replicas=replicas,
        )

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
            kv_tokens=engine.plan.kv_tokens, note=engine.plan.note,
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
        facts = fields(name=self.spec.name, **({"problem": problem} if problem else {}))
        logger.log(logging.ERROR if problem else logging.INFO, "model is %s %s", state, facts)
        self._changed()
