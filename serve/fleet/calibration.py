"""What launches measured, between the book that keeps it and the plans that need it."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from serve.catalog import ModelSpec
from serve.engine import Engine, EnginePool
from serve.errors import StartFailed, StoreError
from serve.log import fields
from serve.plan import Plan
from serve.profiles import Profile, ProfileBook, ProfileKey

_log = logging.getLogger(__name__)
# Failures (`StartFailed.finding`) after the cache was made: there was less room than thought.
_TOO_LARGE_A_CACHE = (("after_kv",), ("sampler",))


class Calibration:
    """Finds and keeps profiles under keys that also tell apart what engines are told besides the
    plan: `engine_args` of the operator, and those of the model's entry. `book` None: no memory.

    Keeping never fails: a launch that went well is no worse for a full disk.
    """

    def __init__(self, book: ProfileBook | None, engine_args: tuple[str, ...] = ()) -> None:
        self._book = book
        self._engine_args = engine_args

    def finder(self, spec: ModelSpec) -> Callable[[ProfileKey], Profile | None] | None:
        """Where a plan for this model looks for what was measured."""
        book = self._book
        if book is None:
            return None
        return lambda key: book.find(self._told(spec, key))

    async def keep(self, engine: Engine) -> None:
        """After a launch: what the engine measured."""
        if self._book is not None:
            await self._record(engine.plan, await engine.profile())

    async def keep_failure(self, pool: EnginePool, plan: Plan, error: StartFailed) -> None:
        """After a start that failed: how much there was for the cache, where it came so far."""
        if self._book is not None:
            await self._record(plan, await asyncio.to_thread(pool.failed_profile, plan, error))

    async def doubt(self, plan: Plan, error: StartFailed) -> Plan | None:
        """The same plan with a cache that the engine measures itself, if one that was measured
        before may be why the start failed; what was measured is forgotten then.

        It may hold no more: another driver or library takes more memory beside the cache.
        """
        is_told = plan.device == "cuda" and plan.is_kv_fixed and plan.is_calibrated
        if self._book is None or plan.key is None or not is_told:
            return None
        if error.finding[:1] not in _TOO_LARGE_A_CACHE:
            return None
        spec = plan.subject.spec
        _log.warning("what was measured does not hold, measuring anew %s", fields(model=spec.name))
        key = self._told(spec, plan.key)
        try:
            await asyncio.to_thread(self._book.remove, [key])
        except StoreError as problem:
            _log.warning("not forgotten: %s", fields(profile_of=spec.name, problem=problem))
        return replace(plan, is_kv_fixed=False)

    async def _record(self, plan: Plan, profile: Profile | None) -> None:
        spec = plan.subject.spec
        if self._book is None or profile is None:
            return
        told = replace(profile, key=self._told(spec, profile.key))
        try:
            await asyncio.to_thread(self._book.record, told)
        except (StoreError, OSError) as error:
            _log.warning("not kept: %s", fields(profile_of=spec.name, problem=error))

    def _told(self, spec: ModelSpec, key: ProfileKey) -> ProfileKey:
        return key.told(self._engine_args, spec.engine_args)
