"""From a catalog entry to a ready engine: weights, plan, start, and what each start teaches."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

from serve.catalog import ModelSpec
from serve.engine import Engine, EnginePool
from serve.errors import BadFile, DoesNotFit, RuntimeMissing, StartFailed
from serve.fleet.calibration import Calibration
from serve.fleet.config import FleetConfig
from serve.fleet.curing import Curing
from serve.fleet.decide import may_take_over
from serve.fleet.neighbours import naming_strangers
from serve.fleet.notes import Notes
from serve.fleet.shares import Seat, share_of
from serve.geometry import read_geometry
from serve.hardware import Machine
from serve.log import fields
from serve.plan import Plan, Subject, Wishes, make_plan
from serve.shape import Geometry
from serve.store import Store, Weights

logger = logging.getLogger(__name__)


class Starts:
    """Makes plans and engines; `survivors` are those of a supervisor before us, by replica."""

    def __init__(
        self,
        config: FleetConfig,
        store: Store,
        pool: EnginePool | None,
        read_machine: Callable[[], Machine],
    ) -> None:
        self._wishes = config.wishes
        self._store = store
        self._pool = pool
        self._read_machine = read_machine
        self._calibration = Calibration(config.book, config.engine_args)
        self._curing = Curing(config.wishes, config.lessons)
        # Two engines that measure free memory at the same moment both take it (vLLM's own
        # profiling asserts against it), so starts go one after another.
        self._starting = asyncio.Lock()
        self.survivors: dict[str, Engine] = {}

    async def adopt(self, replicas: Iterable[str]) -> None:
        """Find the engines that outlived a supervisor; end all but these replicas."""
        wanted = set(replicas)
        for engine in await self._pool.adopt() if self._pool else ():
            if engine.replica in wanted and engine.replica not in self.survivors:
                self.survivors[engine.replica] = engine
            else:
                await engine.stop(0)

    async def prepare(self, spec: ModelSpec, seat: Seat) -> Plan:
        """The plan of one replica; weights that are not here are fetched."""
        return await asyncio.to_thread(self._plan, spec, seat)

    async def start(self, spec: ModelSpec, seat: Seat, plan: Plan) -> Engine:
        """A ready engine by this plan, or one like it."""
        survivor = self.survivors.pop(seat.replica, None)
        if survivor is not None:
            if self._may_take_over(survivor, plan.subject, seat):
                return survivor
            await survivor.stop(0)
        # At each load, a restart too: what was right an hour ago may have been written to.
        weights = await asyncio.to_thread(self._store.ready, spec)
        if weights.view != plan.subject.path:
            # Other weights by now: some were gone and fetched anew.
            plan = await self.prepare(spec, seat)

        async def replan(wishes: Wishes) -> Plan:
            return await asyncio.to_thread(self._planned, plan.subject, weights, seat, wishes)

        async with self._starting:
            return await self._curing.start(partial(self._begin, seat.replica), plan, replan)

    async def _begin(self, replica: str, plan: Plan) -> Engine:
        """One start, and what it measured is kept for the next plan."""
        pool = self._need_pool()
        try:
            engine = await pool.start(plan, replica)
        except StartFailed as error:
            is_wished = self._wishes.kv_cache_bytes is not None
            anew = None if is_wished else await self._calibration.doubt(plan, error)
            if anew is None:
                await self._calibration.keep_failure(pool, plan, error)
                machine = await asyncio.to_thread(self._read_machine)
                raise naming_strangers(error, pool.strangers(machine.gpus)) from error
            return await self._begin(replica, anew)
        await self._calibration.keep(engine)
        return engine

    def _need_pool(self) -> EnginePool:
        if self._pool is None:
            raise RuntimeMissing(self._read_machine().device, "a supervisor without a runtime")
        return self._pool

    def _plan(self, spec: ModelSpec, seat: Seat) -> Plan:
        self._need_pool()
        weights = self._store.ready(spec, Notes(spec.name))
        subject = Subject(spec, weights.view, weights.digest, weights.total_bytes)
        survivor = self.survivors.get(seat.replica)
        if survivor is not None and self._may_take_over(survivor, subject, seat):
            # Its memory is taken already: planned anew it would seem not to fit.
            return survivor.plan
        plan = self._curing.plan(partial(self._planned, subject, weights, seat))
        if plan.note is not None:
            logger.warning("planned %s", fields(replica=seat.replica, note=plan.note))
        return plan

    def _may_take_over(self, survivor: Engine, subject: Subject, seat: Seat) -> bool:
        """Not one of another number of replicas: its cores are shared out anew."""
        plan = survivor.plan
        if not may_take_over(plan, subject, self._wishes):
            return False
        cpu = share_of(self._read_machine(), seat).cpu
        is_all = len(plan.cores) * len(cpu.nodes) >= len(cpu.cores)
        return not plan.cores or (is_all and set(plan.cores) <= set(cpu.cores))

    def _planned(self, subject: Subject, weights: Weights, seat: Seat, wishes: Wishes) -> Plan:
        geometry = self._geometry(weights)
        find = self._calibration.finder(subject.spec)
        machine = share_of(self._read_machine(), seat)
        try:
            return make_plan(subject, geometry, machine, wishes, find)
        except DoesNotFit as error:
            strangers = self._need_pool().strangers(machine.gpus)
            raise naming_strangers(error, strangers) from error

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
