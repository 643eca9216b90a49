"""All models that are served here, and the roster that says so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from serve.catalog import Catalog
from serve.engine import EnginePool
from serve.errors import ModelNotServed, ShuttingDown
from serve.fleet.config import FleetConfig
from serve.fleet.energy import EnergyLog
from serve.fleet.foreign import ForeignModel
from serve.fleet.keeper import ModelStatus
from serve.fleet.metering import watch
from serve.fleet.own import OwnModel
from serve.fleet.starts import Starts
from serve.hardware import Machine
from serve.quota import Key
from serve.roster import Roster
from serve.settings import ModelTerms
from serve.store import Store


class Fleet:
    """Which models run here. Every state change is seen in `status` and in the next roster.

    `pool` None: no engine is ever started, all models are somebody else's. Raises UnknownModel for
    terms of a model that neither the catalog nor a URL has.
    """

    def __init__(
        self,
        config: FleetConfig,
        catalog: Catalog,
        store: Store,
        pool: EnginePool | None,
        read_machine: Callable[[], Machine],
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._starts = Starts(config, store, pool, read_machine)
        self._read_machine = read_machine
        self._energy = EnergyLog()
        self._foreign: dict[str, ModelTerms] = {}  # by every name, in lower case
        self._terms: dict[str, ModelTerms] = {}
        for terms in config.models:
            if terms.urls:
                names = (*terms.aliases, terms.name)
                self._foreign |= dict.fromkeys(map(str.casefold, names), terms)
            else:
                self._terms[catalog.find(terms.name).name] = terms
        self._models: dict[str, OwnModel | ForeignModel] = {}
        self._roster = Roster(
            keys=config.keys or (), tenants=config.tenants, is_open=config.keys is None
        )
        self._news = asyncio.Event()

    async def adopt(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Take over engines that outlived a supervisor, for the models named; end the others.

        Returns the canonical names of those that may be taken over by `load`.
        """
        own = {self._name(name) for name in names if name.casefold() not in self._foreign}
        replicas = {f"{name}-{n}": name for name in own for n in range(self._of(name).replicas)}
        await self._starts.adopt(replicas)
        return tuple(dict.fromkeys(replicas[replica] for replica in self._starts.survivors))

    async def load(self, name: str) -> ModelStatus:
        """Serve a model: returns when each of its replicas is ready or given up, and one of them is
        ready; raises what keeps it from being.

        A model that is served already is waited for; replicas in quarantine are tried anew. A model
        of somebody else is asked for once: it is served even if it is not there yet.
        """
        if self._roster.is_draining:
            raise ShuttingDown(retry_after_s=10)
        key = self._name(name)
        model = self._models.get(key)
        if model is None:
            model = self._models[key] = self._make(key)
            self._publish()
        else:
            await model.revive()
        try:
            return await model.settled()
        finally:
            # A caller that leaves does not end the load; a first start that failed ends the wish.
            if model.is_over and self._models.get(key) is model:
                del self._models[key]
                self._publish()

    async def unload(self, name: str) -> None:
        """Serve a model no more; running requests have `drain_s` to end. Raises ModelNotServed."""
        model = self._models.pop(self._name(name), None)
        if model is None:
            raise ModelNotServed(name, tuple(self._models))
        self._publish()  # first no new requests, then the end
        await model.stop(self._config.drain_s)

    def set_keys(self, keys: tuple[Key, ...] | None) -> None:
        """Who may enter from now on; None: everybody."""
        self._roster = replace(self._roster, keys=keys or (), is_open=keys is None)
        self._publish()

    async def watch_energy(self) -> None:
        """Look at what cards use, until cancelled."""
        await watch(self._energy, self.status, self._read_machine)

    def energy(self, replica: str, at: float, duration_s: float) -> float | None:
        """Joules of a request that began `at` (unix seconds); None if that is not known."""
        return self._energy.share(replica, at, duration_s)

    def status(self) -> tuple[ModelStatus, ...]:
        """Every replica of every wanted model."""
        return tuple(status for model in self._models.values() for status in model.status())

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
        self._roster = replace(self._roster, is_draining=True)
        self._publish()

    async def close(self) -> None:
        """End every engine now; those who want to drain have done it at the gateways."""
        self.refuse_new()
        survivors = [engine.stop(0) for engine in self._starts.survivors.values()]
        models = [model.stop(0) for model in self._models.values()]
        self._models = {}
        self._starts.survivors.clear()
        await asyncio.gather(*models, *survivors)

    def _name(self, name: str) -> str:
        """The one of all its names under which it is kept; UnknownModel if nobody has it."""
        foreign = self._foreign.get(name.casefold())
        return self._catalog.find(name).name if foreign is None else foreign.name

    def _of(self, name: str) -> ModelTerms:
        return self._terms.get(name, ModelTerms(name))

    def _make(self, name: str) -> OwnModel | ForeignModel:
        foreign = self._foreign.get(name.casefold())
        if foreign is not None:
            return ForeignModel(foreign, self._config.probe_s, self._publish)
        return OwnModel(self._catalog.find(name), self._of(name), self._starts, self._publish)

    def _publish(self) -> None:
        self._roster = replace(
            self._roster,
            version=self._roster.version + 1,
            models=tuple(model.served() for model in self._models.values()),
        )
        self._news.set()
        self._news = asyncio.Event()
