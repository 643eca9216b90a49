"""What a gateway knows of the roster: models by name, keys, and the list that clients get."""

import difflib
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
        self.update(roster)

    def update(self, roster: Roster) -> None:
        self.roster = roster
        self.keyring = Keyring(roster.keys)
        self._by_name: dict[str, ServedModel] = {}
        cards = []
        for model in roster.models:
            for name in (model.name, *model.aliases):
                self._by_name[name.casefold()] = model
                cards.append(_card(name, model))
        self._cards = {card["id"].casefold(): msgspec.json.encode(card) for card in cards}
        self.listing = msgspec.json.encode({"object": "list", "data": cards})

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
        return card

    def _not_served(self, name: str) -> ModelNotServed:
        if len(name) > _LONGEST_NAME:
            return ModelNotServed(name)
        return ModelNotServed(
            name, tuple(difflib.get_close_matches(name.casefold(), self._by_name, n=2))
        )


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
