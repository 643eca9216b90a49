"""The shapes of shipped models: enough of each config.json to plan with, without network or disk.

`shapes.json` is the table, by repository (or wheel): the fields that decide what a model needs,
under the names of its config.json, with their `source`; or another model that it is `like`, with
what differs; and for variants the `packing` of their weights.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from serve.sources import HubSource, ModelScopeSource, Source, WheelSource, show_source

_TABLE = Path(__file__).parent / "shapes.json"


def shape_of(source: Source) -> Mapping[str, Any] | None:
    """The decisive fields of the config.json at this source; None where they are not known here.

    A folder or a bundle of the operator's has a config.json of its own, so it has no shape here.
    """
    if isinstance(source, HubSource | WheelSource):
        return _shape(show_source(source))
    if isinstance(source, ModelScopeSource):
        # The same repository under another organisation: modelscope:ZhipuAI/GLM-4.5.
        return _shape(_by_last_name().get(_last_name(source.repo), ""))
    return None


def _shape(name: str) -> Mapping[str, Any] | None:
    entry = _table()["shapes"].get(name)
    if entry is None:
        return None
    like = _shape(entry["like"]) if "like" in entry else None
    packing = entry.get("packing")
    quantization = {"quantization_config": _table()["packings"][packing]} if packing else {}
    return {**(like or {}), **quantization, **entry.get("config", {})}


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Mapping[str, Any]]:
    content: Mapping[str, Mapping[str, Any]] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return content


@lru_cache(maxsize=1)
def _by_last_name() -> Mapping[str, str]:
    return {_last_name(name): name for name in _table()["shapes"]}


def _last_name(repo: str) -> str:
    return repo.rpartition("/")[2].lower()
