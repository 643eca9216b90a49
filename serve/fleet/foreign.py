"""A model that somebody else serves: one or more servers, watched from afar."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from serve.errors import SettingsError, SourceUnreachable
from serve.fleet.keeper import ModelStatus
from serve.fleet.probing import Look, UpstreamProbe
from serve.log import fields
from serve.roster import Replica, ServedModel, State
from serve.settings import ModelTerms
from serve.wire import to_wire

logger = logging.getLogger(__name__)

# A server may be too busy to answer; so often in a row it is gone.
_MOST_SILENCES = 3


class ForeignModel:
    """Watches the servers of a model that has URLs. Nothing is started, and nothing ended.

    Raises SettingsError if their key cannot be read.
    """

    is_over = False

    def __init__(self, terms: ModelTerms, every_s: float, changed: Callable[[], None]) -> None:
        self.name = terms.name
        self._terms = terms
        self._created = int(time.time())
        key = _key(terms)
        self._watches = [
            _Watch(terms, index, key, every_s, changed) for index in range(len(terms.urls))
        ]

    def status(self) -> tuple[ModelStatus, ...]:
        return tuple(watch.status for watch in self._watches)

    async def settled(self) -> ModelStatus:
        """Wait until each was asked once: the status of the first that is ready, or else of the
        first. One that is not there may come later."""
        await asyncio.gather(*(watch.asked.wait() for watch in self._watches))
        statuses = self.status()
        return next((each for each in statuses if each.state == "ready"), statuses[0])

    async def revive(self) -> None:
        """Nothing is ever given up."""

    async def stop(self, grace_s: float) -> None:
        """Look no more."""
        await asyncio.gather(*(watch.stop() for watch in self._watches))

    def served(self) -> ServedModel:
        """As the roster shows it."""
        terms, states = self._terms, {status.state for status in self.status()}
        ready = [watch for watch in self._watches if watch.status.state == "ready"]
        contexts = [watch.look.context_tokens for watch in ready if watch.look.context_tokens]
        missing: State = "restarting" if "restarting" in states else "starting"
        return ServedModel(
            name=self.name,
            aliases=terms.aliases,
            state="ready" if ready else missing,
            context_tokens=terms.context_tokens or min(contexts, default=0),
            created=self._created,
            replicas=tuple(watch.replica() for watch in ready),
            upstream=terms.upstream,
            routing=cast(Any, terms.routing),
            limits=terms.limits,
            price=terms.price,
            takes_salt=terms.takes_salt,
        )


class _Watch:
    """One server, asked again and again. `_run` is the only writer."""

    def __init__(
        self, terms: ModelTerms, index: int, key: str, every_s: float, changed: Callable[[], None]
    ) -> None:
        self._terms = terms
        self._address = terms.urls[index]
        self._key = key
        self._every_s = every_s
        self._changed = changed
        self._epoch = 0
        self.look = Look()
        self.asked = asyncio.Event()
        self.status = ModelStatus(
            terms.name, "starting", f"{terms.name}-{index}", address=self._address
        )
        self._task = asyncio.create_task(self._run())

    def replica(self) -> Replica:
        return Replica(
            id=self.status.replica,
            address=self._address,
            kv_tokens=self.look.kv_tokens,
            slots=self._terms.slots,
            key=self._key,
            epoch=self._epoch,
        )

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        probe = UpstreamProbe(self._address, self._key)
        try:
            silences = 0
            while True:
                is_ready = self.status.state == "ready"
                look = await probe.look(self._terms.upstream or self._terms.name, is_ready)
                silences = silences + 1 if look.is_silent else 0
                if not (is_ready and 0 < silences < _MOST_SILENCES):
                    self._learn(look, is_ready)
                self.asked.set()
                await asyncio.sleep(self._every_s)
        finally:
            await probe.close()

    def _learn(self, look: Look, was_ready: bool) -> None:
        if look.problem is None and not was_ready:
            self._epoch += 1
            self.look = look
            self.status = replace(
                self.status, state="ready", problem=None, started_at=time.time(),
                context_tokens=look.context_tokens or None, kv_tokens=look.kv_tokens or None,
                restarts=self._epoch - 1,
            )  # fmt: skip
            logger.info("upstream is ready %s", fields(name=self.status.replica))
        elif look.problem is not None and (was_ready or not self.asked.is_set()):
            problem = SourceUnreachable(self._address, look.problem)
            state: State = "restarting" if was_ready else "starting"
            self.status = replace(
                self.status, state=state, problem=to_wire(problem), started_at=None
            )
            facts = fields(name=self.status.replica, problem=look.problem)
            logger.warning("upstream is not there %s", facts)
        else:
            return
        self._changed()


def _key(terms: ModelTerms) -> str:
    if terms.key_file is None:
        return ""
    try:
        return terms.key_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        key = f"models.{terms.name}.key_file"
        problem = f"{terms.key_file} cannot be read: {error}"
        raise SettingsError("inhouse.yaml", key, problem) from error
