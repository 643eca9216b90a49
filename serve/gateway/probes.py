"""What is asked of the gateway itself: health, readiness, models, metrics."""

import asyncio

import msgspec

from serve.errors import ModelNotServed
from serve.gateway.config import Config
from serve.gateway.door import may_use
from serve.gateway.exchange import Request, answer
from serve.gateway.merging import merge
from serve.gateway.metrics import CONTENT_TYPE, Metrics
from serve.gateway.pool import Pool
from serve.gateway.reply import say
from serve.gateway.served import Served
from serve.gateway.siblings import EVERY_S, leave, together

_SCRAPE_TIMEOUT_S = 2.0
_MODELS = "/v1/models/"
_JSON = (b"content-type", b"application/json")


class Probes:
    """One per gateway process."""

    def __init__(self, config: Config, served: Served, pool: Pool, metrics: Metrics) -> None:
        self._folder, self._slot = config.run_folder, config.slot
        self._served = served
        self._pool = pool
        self._metrics = metrics

    async def health(self, request: Request) -> None:
        """`GET /health`: the process lives."""
        await say(request, {"status": "alive"})

    async def ready(self, request: Request) -> None:
        """`GET /ready`: a model can answer; 503 if not."""
        roster = self._served.roster
        is_ready = any(model.replicas for model in roster.models) and not roster.is_draining
        states = {model.name: model.state for model in roster.models}
        record = {"ready": is_ready, "draining": roster.is_draining, "models": states}
        await answer(request, 200 if is_ready else 503, msgspec.json.encode(record), [_JSON])

    async def models(self, request: Request) -> None:
        """`GET /v1/models` and `/v1/models/NAME`: those that the key may use."""
        served, key = self._served, request.caller.key
        if not request.path.startswith(_MODELS):
            content = served.listing(lambda each: may_use(key, each.name, *each.aliases))
            return await answer(request, 200, content, [_JSON])
        name = request.path.removeprefix(_MODELS)
        model = served.model(name)
        if model is not None and not may_use(key, model.name, *model.aliases):
            raise ModelNotServed(name)
        await answer(request, 200, served.card(name), [_JSON])

    async def metrics(self, request: Request) -> None:
        """`GET /metrics`: our series, and the engines'."""
        text = self._metrics.text()
        if self._folder is not None:
            text = together(self._folder, self._slot, text)
        text += merge(await self._scrape())
        await answer(request, 200, text.encode(), [(b"content-type", CONTENT_TYPE.encode())])

    async def show(self) -> None:
        """Until cancelled, leave our series where the other gateways find them."""
        while self._folder is not None:
            leave(self._folder, self._slot, self._metrics.text())
            await asyncio.sleep(EVERY_S)

    async def _scrape(self) -> dict[str, str]:
        """The text of every engine that answers in time, by replica."""
        replicas = [replica for model in self._served.roster.models for replica in model.replicas]
        texts = await asyncio.gather(
            *(self._pool.fetch(each.address, "/metrics", _SCRAPE_TIMEOUT_S) for each in replicas)
        )
        pairs = zip(replicas, texts, strict=True)
        return {each.id: text.decode() for each, text in pairs if text is not None}
