"""All engines on this machine: the one place where store, hardware, plan and engine meet."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

from serve.catalog import Catalog, ModelSpec
from serve.engine import Engine, EnginePool
from serve.errors import BadFile, DoesNotFit, ModelNotServed, ShuttingDown, StartFailed
from serve.fleet.calibration import Calibration
from serve.fleet.curing import Curing
from serve.fleet.decide import may_take_over
from serve.fleet.keeper import Keeper, ModelStatus
from serve.fleet.neighbours import naming_strangers
from serve.fleet.notes import Notes
from serve.geometry import read_geometry
from serve.hardware import Machine
from serve.log import fields
from serve.plan import Plan, Subject, Wishes, make_plan
from serve.profiles import Lessons, ProfileBook
from serve.quota import Key
from serve.roster import Roster
from serve.shape import Geometry
from serve.store import Store, Weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """`keys`: who may enter, None: everybody. `drain_s`: see `Fleet.unload`.
    `book`: where measurements are kept, None: nowhere. `engine_args`: the operator's own flags,
    under which they were taken. `lessons`: what failed starts have taught."""

    wishes: Wishes
    keys: tuple[Key, ...] | None
    drain_s: float
    book: ProfileBook | None = None
    engine_args: tuple[str, ...] = ()
    lessons: Lessons = field(default_factory=lambda: Lessons(None))


class Fleet:
    """Which models run here. Every state change is seen in `status` and in the next roster."""

    def __init__(
        self,
        config: FleetConfig,
        catalog: Catalog,
        store: Store,
        pool: EnginePool,
        read_machine: Callable[[], Machine],
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._store = store
        self._pool = pool
        self._read_machine = read_machine
        self._calibration = Calibration(config.book, config.engine_args)
        self._curing = Curing(config.wishes, config.lessons)
        self._keepers: dict[str, Keeper] = {}
        self._survivors: dict[str, Engine] = {}
        # Two engines that measure free memory at the same moment both take it (vLLM's own
        # profiling asserts against it), so starts go one after another.
        self._starting = asyncio.Lock()
        self._roster = Roster(keys=config.keys or (), is_open=config.keys is None)
        self._news = asyncio.Event()

    async def adopt(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Take over engines that outlived a supervisor, for the models named; end the others.

        Returns the canonical names of those that may be taken over by `load`.
        """
        wanted = {self._catalog.find(name).name for name in names}
        for engine in await self._pool.adopt():
            name = engine.plan.subject.spec.name
            if name in wanted and name not in self._survivors:
                self._survivors[name] = engine
            else:
                await engine.stop(0)
        return tuple(self._survivors)

    async def load(self, name: str) -> ModelStatus:
        """Serve a model: returns when it is ready, raises what keeps it from being.

        A model that is served already is waited for; a quarantined one is tried anew.
        """
        if self._roster.is_draining:
            raise ShuttingDown(retry_after_s=10)
        spec = self._catalog.find(name)
        keeper = self._keepers.get(spec.name)
        if keeper is not None and keeper.status.state == "quarantined":
            await self._end(keeper, 0)
            keeper = None
        if keeper is None:
            keeper = self._keep(spec)
        try:
            return await keeper.settled()
        finally:
            # A caller that leaves does not end the load; a first start that failed ends the wish.
            if keeper.is_over and self._keepers.get(spec.name) is keeper:
                del self._keepers[spec.name]
                self._publish()

    async def unload(self, name: str) -> None:
        """Serve a model no more; running requests have `drain_s` to end. Raises ModelNotServed."""
        keeper = self._keepers.get(self._catalog.find(name).name)
        if keeper is None:
            raise ModelNotServed(name, tuple(self._keepers))
        await self._end(keeper, self._config.drain_s)

    def status(self) -> tuple[ModelStatus, ...]:
        """Every wanted model."""
        return tuple(keeper.status for keeper in self._keepers.values())

    def roster(self) -> Roster:
        """What can be served now."""
        return self._roster

    async def rosters(self) -> AsyncIterator[Roster]:
        """The roster now, then each change; a slow reader sees the newest, not every one."""
        while True:
            news, roster = self._news, self._roster
            yield roster
            if roster is self._roster:
                await news.wait()

    def refuse_new(self) -> None:
        """Tell the gateways to admit nothing more."""
        self._publish(is_draining=True)

    async def close(self) -> None:
        """End every engine now; those who want to drain have done it at the gateways."""
        self.refuse_new()
        survivors = [engine.stop(0) for engine in self._survivors.values()]
        keepers = [keeper.stop(0) for keeper in self._keepers.values()]
        self._keepers, self._survivors = {}, {}
        await asyncio.gather(*keepers, *survivors)

    def _keep(self, spec: ModelSpec) -> Keeper:
        async def prepare() -> Plan:
            return await asyncio.to_thread(self._plan, spec)

        async def start(plan: Plan) -> Engine:
            survivor = self._survivors.pop(spec.name, None)
            if survivor is not None:
                if may_take_over(survivor.plan, plan.subject, self._config.wishes):
                    return survivor
                await survivor.stop(0)
            # At each load, a restart too: what was right an hour ago may have been written to.
            weights = await asyncio.to_thread(self._store.ready, spec)
            if weights.view != plan.subject.path:
                plan = await prepare()  # other weights by now: some were gone and fetched anew

            async def replan(wishes: Wishes) -> Plan:
                return await asyncio.to_thread(self._planned, plan.subject, weights, wishes)

            async with self._starting:
                return await self._curing.start(
                    partial(self._begin, f"{spec.name}-0"), plan, replan
                )

        keeper = Keeper(spec, prepare, start, self._publish)
        self._keepers[spec.name] = keeper
        self._publish()
        return keeper

    async def _begin(self, replica: str, plan: Plan) -> Engine:
        """One start, and what it measured is kept for the next plan."""
        try:
            engine = await self._pool.start(plan, replica)
        except StartFailed as error:
            is_wished = self._config.wishes.kv_cache_bytes is not None
            anew = None if is_wished else await self._calibration.doubt(plan, error)
            if anew is None:
                await self._calibration.keep_failure(self._pool, plan, error)
                machine = await asyncio.to_thread(self._read_machine)
                raise naming_strangers(error, self._pool.strangers(machine.gpus)) from error
            return await self._begin(replica, anew)
        await self._calibration.keep(engine)
        return engine

    def _plan(self, spec: ModelSpec) -> Plan:
        weights = self._store.ready(spec, Notes(spec.name))
        subject = Subject(spec, weights.view, weights.digest, weights.total_bytes)
        survivor = self._survivors.get(spec.name)
        if survivor is not None and may_take_over(survivor.plan, subject, self._config.wishes):
            # Its memory is taken already: planned anew it would seem not to fit.
            return survivor.plan
        plan = self._curing.plan(partial(self._planned, subject, weights))
        if plan.note is not None:
            logger.warning("planned %s", fields(model=spec.name, note=plan.note))
        return plan

    def _planned(self, subject: Subject, weights: Weights, wishes: Wishes) -> Plan:
        geometry = self._geometry(weights)
        find = self._calibration.finder(subject.spec)
        machine = self._read_machine()
        try:
            return make_plan(subject, geometry, machine, wishes, find)
        except DoesNotFit as error:
            raise naming_strangers(error, self._pool.strangers(machine.gpus)) from error

    def _geometry(self, weights: Weights) -> Geometry:
        """As exact as can be. Headers that we read otherwise than config.json are the engine's to
        judge: it may know a form of weights that we do not."""
        config = self._store.config(weights)
        try:
            return read_geometry(config, self._store.tensors(weights))
        except BadFile as error:
            geometry = read_geometry(config)  # raises if it is config.json that is wrong
            facts = fields(model=weights.name, problem=error.problem)
            logger.warning("planned by config.json alone: the headers differ %s", facts)
            return geometry

    async def _end(self, keeper: Keeper, grace_s: float) -> None:
        self._keepers.pop(keeper.spec.name, None)
        self._publish()  # first no new requests, then the end
        await keeper.stop(grace_s)

    def _publish(self, is_draining: bool | None = None) -> None:
        self._roster = Roster(
            version=self._roster.version + 1,
            models=tuple(keeper.served() for keeper in self._keepers.values()),
            keys=self._roster.keys,
            is_open=self._roster.is_open,
            is_draining=self._roster.is_draining if is_draining is None else is_draining,
        )
        self._news.set()
        self._news = asyncio.Event()
