"""Models as Ollama shows them: what we know of them, and nothing made up. Pure."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from serve.errors import ModelNotServed
from serve.gateway.door import may_use
from serve.gateway.served import Served
from serve.quota import Key
from serve.roster import ServedModel

_LATEST = ":latest"
_NEVER = "9999-12-31T00:00:00Z"  # when a model is put out of memory


def plain(name: str, served: Served) -> str:
    """A model's name without the tag that Ollama's clients put behind it, if none has it."""
    if not name.endswith(_LATEST):
        return name
    known = {known.casefold() for model in served.roster.models for known in _names(model)}
    return name if name.casefold() in known else name.removesuffix(_LATEST)


def tags(served: Served, key: Key | None) -> dict[str, Any]:
    """The answer of `/api/tags`: what `key` may use."""
    return {
        "models": [
            _card(name, model)
            for model in served.roster.models
            for name in _names(model)
            if may_use(key, *_names(model))
        ]
    }


def running(served: Served, key: Key | None) -> dict[str, Any]:
    """The answer of `/api/ps`: the models that can answer now."""
    return {
        "models": [
            _card(model.name, model)
            | {"expires_at": _NEVER, "size_vram": 0, "context_length": model.context_tokens}
            for model in served.roster.models
            if model.state == "ready" and may_use(key, *_names(model))
        ]
    }


def show(name: str, served: Served, key: Key | None) -> dict[str, Any]:
    """The answer of `/api/show`. ModelNotServed."""
    plain_name = plain(name, served)
    model = next(
        (
            model
            for model in served.roster.models
            if plain_name.casefold() in {known.casefold() for known in _names(model)}
            and may_use(key, *_names(model))
        ),
        None,
    )
    if model is None:
        raise ModelNotServed(name)
    card = _card(model.name, model)
    about = {"general.architecture": "unknown", "general.basename": model.name}
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": card["details"],
        "model_info": about | {"unknown.context_length": model.context_tokens},
        "capabilities": ["completion"],
        "modified_at": card["modified_at"],
    }


def _names(model: ServedModel) -> tuple[str, ...]:
    return (model.name, *model.aliases)


def _card(name: str, model: ServedModel) -> dict[str, Any]:
    """Its clients take a name without a tag for one with `:latest`, so it is written out."""
    shown = name if ":" in name else name + _LATEST
    return {
        "name": shown,
        "model": shown,
        "modified_at": datetime.fromtimestamp(model.created, UTC).isoformat(),
        "size": 0,
        # Of the name: the weights have one for each file, and their users' tools only compare it.
        "digest": hashlib.sha256(model.name.encode()).hexdigest(),
        "details": {
            "parent_model": "",
            "format": "safetensors",
            "family": "",
            "families": [],
            "parameter_size": "",
            "quantization_level": "",
        },
    }
