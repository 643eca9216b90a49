"""A fleet over a real pool whose engines are the fake vLLM, with weights of a few bytes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

from serve.catalog import load_catalog
from serve.engine import EnginePool
from serve.fleet import Fleet, FleetConfig
from serve.hardware import Cpu, Machine
from serve.plan import Wishes
from serve.profiles import Lessons, ProfileBook
from serve.quota import Key, digest_key
from serve.store import Access, Store
from tests.engine_unit.pools import pool_config, short_folder
from tests.fakes.tiny import llama_file

GIB = 2**30
MACHINE = Machine(Cpu("test", (0, 1), ((0, 1),), frozenset(), 16 * GIB, 12 * GIB))
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 64, "vocab_size": 1000, "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}  # fmt: skip


def write_weights(folder: Path) -> None:
    """The least that a plan takes for weights."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(llama_file(CONFIG))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")


def write_catalog(folder: Path, **models: dict[str, Any]) -> Path:
    """A catalog of dir models; each value holds the fake's knobs, and may hold `context`."""
    entries = {}
    for name, knobs in models.items():
        write_weights(folder / name)
        context = knobs.pop("context", 2048)
        entries[name] = {
            "family": "qwen2", "dir": str(folder / name), "context": context, "parameters": "1K",
            "aliases": [f"{name}-alias"],
            "engine_args": {f"fake-{knob.replace('_', '-')}": v for knob, v in knobs.items()},
        }  # fmt: skip
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({"models": entries}))
    return path


def store_at(home: Path) -> Store:
    """A store for models that lie in folders."""

    def unused(*_: object) -> Any:
        raise AssertionError("a dir model is neither fetched nor converted")

    return Store(home, Access("http://unused", None, home / "hf", unused, unused))


@contextlib.asynccontextmanager
async def fleet(home: Path, catalog: Path, **changes: Any) -> AsyncIterator[Fleet]:
    """A running fleet; nothing is left of it at the end. `changes`: of the pool's settings, and
    `wishes`, `machine`, `engine_args`, and `models` and `tenants` of its own."""

    store, book = store_at(home), ProfileBook(home / "profiles")
    wishes, machine = changes.pop("wishes", Wishes()), changes.pop("machine", MACHINE)
    told = changes.pop("engine_args", ())
    lessons = Lessons(home / "lessons.json")
    terms = {name: changes.pop(name) for name in ("models", "tenants") if name in changes}
    keys = (Key("k", digest_key("k"), "t"),)
    config = FleetConfig(wishes, keys, 1.0, book, told, lessons, **terms)
    async with EnginePool(pool_config(home, **changes), lambda: 0) as pool:
        made = Fleet(config, load_catalog(catalog), store, pool, lambda: machine)
        try:
            yield made
        finally:
            await made.close()


async def state_is(made: Fleet, state: str) -> None:
    """Follow the rosters until the only model is in this state."""
    async with asyncio.timeout(20):
        async for roster in made.rosters():
            if roster.models and roster.models[0].state == state:
                return


__all__ = ["fleet", "short_folder", "state_is", "store_at", "write_catalog"]
