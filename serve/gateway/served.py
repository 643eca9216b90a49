"""What a gateway knows of the roster: models by name, keys, and the list that clients get."""

import asyncio
import contextlib
import difflib
from collections.abc import Callable
from typing import Any

import msgspec

from serve.errors import ModelNotReady, ModelNotServed, ShuttingDown
from serve.quota import Keyring
from serve.roster import Roster, ServedModel

_RETRY_AFTER_S = {"starting": 5, "restarting": 5, "quarantined": 60}
DRAIN_RETRY_S = 10
_LONGEST_NAME = 200  # characters; nothing is searched for what is longer


class Served:
    """The current roster, indexed. Only `update` changes it, all at once."""

    def __init__(self, roster: Roster) -> None:
        self._listeners: list[Callable[[Roster], None]] = []
        self._news = asyncio.Event()
        self.update(roster)

    def listen(self, listener: Callable[[Roster], None]) -> None:
        """Tell `listener` of the current roster, and of each that follows."""
        self._listeners.append(listener)
        listener(self.roster)

    async def changed(self, longest_s: float) -> None:
        """Until the next roster, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._news.wait()

    def update(self, roster: Roster) -> None:
        """There is a new roster."""
        self.roster = roster
        self.keyring = Keyring(roster.keys)
        self._by_name: dict[str, ServedModel] = {}
        self._slots = {model.name: (model, _slots(model)) for model in roster.models}
        cards = []
        for model in roster.models:
            for name in (model.name, *model.aliases):
                self._by_name[name.casefold()] = model
                cards.append(_card(name, model))
        self._cards = {card["id"].casefold(): card for card in cards}
        for listener in self._listeners:
            listener(roster)
        news, self._news = self._news, asyncio.Event()
        news.set()

    def find(self, name: str) -> ServedModel:
        """The ready model of this name or alias; otherwise the error that says why not."""
        if self.roster.is_draining:
            raise ShuttingDown(DRAIN_RETRY_S)
        model = self._by_name.get(name.casefold())
        if model is None:
            raise self._not_served(name)
        if not model.replicas:
            raise ModelNotReady(model.name, model.state, _RETRY_AFTER_S.get(model.state, 5))
        return model

    def card(self, name: str) -> bytes:
        """What `/v1/models/NAME` answers; ModelNotServed if there is none."""
        card = self._cards.get(name.casefold())
        if card is None:
            raise self._not_served(name)
        return msgspec.json.encode(card)

    def listing(self, may_see: Callable[[ServedModel], bool]) -> bytes:
        """What `/v1/models` answers."""
        seen = {model.name for model in self.roster.models if may_see(model)}
        cards = [card for card in self._cards.values() if card["root"] in seen]
        return msgspec.json.encode({"object": "list", "data": cards})

    def model(self, name: str) -> ServedModel | None:
        """The model of this name or alias, ready or not."""
        return self._by_name.get(name.casefold())

    def slots(self, model: ServedModel) -> int:
        """Requests that its replicas work on at once; 0: as many as come."""
        known = self._slots.get(model.name)
        return known[1] if known is not None and known[0] is model else _slots(model)

    def _not_served(self, name: str) -> ModelNotServed:
        if len(name) > _LONGEST_NAME:
            return ModelNotServed(name)
        return ModelNotServed(
            name, tuple(difflib.get_close_matches(name.casefold(), self._by_name, n=2))
        )


def _slots(model: ServedModel) -> int:
    each = [replica.slots for replica in model.replicas]
    return sum(each) if all(each) else 0


def _card(name: str, model: ServedModel) -> dict[str, Any]:
    """OpenAI's model object, with vLLM's `root` and `max_model_len`, and our `state`."""
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "inhouse",
        "root": model.name,
        "max_model_len": model.context_tokens,
        "state": model.state,
    }
