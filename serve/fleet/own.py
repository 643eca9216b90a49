"""A model that engines of ours serve: one or more replicas, one keeper each."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, cast

from serve.catalog import ModelSpec
from serve.engine import Engine
from serve.errors import InhouseError
from serve.fleet.keeper import Keeper, ModelStatus
from serve.fleet.shares import Seat
from serve.fleet.starts import Starts
from serve.log import fields
from serve.plan import Plan
from serve.roster import ServedModel, State
from serve.settings import ModelTerms

logger = logging.getLogger(__name__)

# Of several replicas the one that is best off says how the model is.
_BEST_FIRST: tuple[State, ...] = ("ready", "starting", "restarting", "quarantined")


class OwnModel:
    """Keeps `terms.replicas` engines of a model running. `changed` is called at every change.

    They are planned and started one after another: each plan sees what those before have taken.
    """

    def __init__(
        self, spec: ModelSpec, terms: ModelTerms, starts: Starts, changed: Callable[[], None]
    ) -> None:
        self.name = spec.name
        self._spec = spec
        self._terms = terms
        self._starts = starts
        self._changed = changed
        self._created = int(time.time())
        self._keepers: list[Keeper] = []
        for index in range(terms.replicas):
            self._keepers.append(self._keeper(index))

    @property
    def is_over(self) -> bool:
        """No replica has ever been ready, and none will."""
        return all(keeper.is_over for keeper in self._keepers)

    def status(self) -> tuple[ModelStatus, ...]:
        return tuple(keeper.status for keeper in self._keepers)

    async def settled(self) -> ModelStatus:
        """Wait until every replica is ready or given up: the status of the first that is ready.
        Raises what kept the first one from it if there is none."""
        tries = [keeper.settled() for keeper in self._keepers]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        for keeper, outcome in zip(self._keepers, outcomes, strict=True):
            if isinstance(outcome, InhouseError) and len(self._keepers) > 1:
                facts = fields(name=keeper.status.replica, problem=outcome)
                logger.error("replica did not start %s", facts)
        for outcome in outcomes:
            if isinstance(outcome, ModelStatus):
                self._changed()  # those that failed count from now on
                return outcome
        raise cast(BaseException, outcomes[0])

    async def revive(self) -> None:
        """Try those anew that were given up."""
        given_up = [
            index for index, status in enumerate(self.status()) if status.state == "quarantined"
        ]
        stopped = [self._keepers[index] for index in given_up]
        for index in given_up:
            self._keepers[index] = self._keeper(index)
        if given_up:
            self._changed()
        await asyncio.gather(*(keeper.stop(0) for keeper in stopped))

    async def stop(self, grace_s: float) -> None:
        """End it; what runs has `grace_s`."""
        await asyncio.gather(*(keeper.stop(grace_s) for keeper in self._keepers))

    def served(self) -> ServedModel:
        """As the roster shows it."""
        statuses, terms = self.status(), self._terms
        replicas = [keeper.replica() for keeper in self._keepers]
        contexts = [status.context_tokens for status in statuses if status.context_tokens]
        return ServedModel(
            name=self.name,
            aliases=self._spec.aliases,
            state=min((status.state for status in statuses), key=_BEST_FIRST.index),
            context_tokens=min(contexts, default=self._spec.context_tokens),
            created=self._created,
            replicas=tuple(replica for replica in replicas if replica is not None),
            routing=cast(Any, terms.routing),
            limits=terms.limits,
            price=terms.price,
        )

    def _keeper(self, index: int) -> Keeper:
        replica = f"{self.name}-{index}"

        def seat() -> Seat:
            running = sum(keeper.replica() is not None for keeper in self._keepers)
            return Seat(replica, index, self._terms.replicas, running)

        async def prepare() -> Plan:
            for before in self._keepers[:index]:
                await before.tried()
            return await self._starts.prepare(self._spec, seat())

        async def start(plan: Plan) -> Engine:
            return await self._starts.start(self._spec, seat(), plan)

        return Keeper(self._spec, replica, prepare, start, self._changed)
