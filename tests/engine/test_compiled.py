"""The compiled form on the real vLLM: a first start prepares it, the second one loads it."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import NoReturn

import httpx
import pytest

from serve.catalog import load_catalog
from serve.engine import Engine, EnginePool, PoolConfig
from serve.engine.compiling import find_cxx
from serve.engine.runtime import Runtime
from serve.geometry import read_geometry
from serve.hardware import read_machine
from serve.plan import Plan, Subject, Wishes, make_plan
from serve.store import Access, Store

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(420),
    pytest.mark.skipif(find_cxx() is None, reason="compiling needs g++"),
]
WISHES = Wishes(device="cpu", context_tokens=512, kv_cache_bytes=256 * 2**20)
# One word more than usual: the bare question is a near tie, which bf16 rounds either way.
QUESTION = "What is the capital of France? Answer with one word."


def test_a_first_start_prepares_what_the_second_one_loads(
    home: Path, runtime: Runtime, cache: Path, short_dir: Path
) -> None:
    async def scenario() -> None:
        config = PoolConfig(
            runtime=runtime,
            run_dir=short_dir,
            log_dir=short_dir / "logs",
            cache_dir=shutil.copytree(cache, short_dir / "cache"),
            spares=1,
        )
        async with EnginePool(config) as pool:
            plan = _plan(home)
            first = await pool.start(plan, "first")
            assert first.mode == "eager"
            pool.keep_spares()  # for the second start
            assert "Paris" in await _ask(first)
            await asyncio.gather(*pool._compiler._tasks.values())
            assert pool._compiler.mode(plan) == "compiled"
            await first.stop(2)
            second = await pool.start(plan, "second")
            assert second.mode == "compiled"
            assert "Paris" in await _ask(second)
            log = second.log_path.read_text()
            # Without serve/inside/repairs.py: "Compiling model again due to a load failure".
            assert "Directly load AOT compilation" in log
            assert "load failure" not in log

    asyncio.run(scenario())


def _plan(home: Path) -> Plan:
    spec = load_catalog().find("smollm2-135m-instruct")
    store = Store(home, Access("http://unused", None, home / "hf", _unused, _unused))
    weights = store.weights(spec)
    subject = Subject(spec, weights.path, weights.digest, weights.total_bytes)
    config = json.loads((weights.path / "config.json").read_text())
    return make_plan(subject, read_geometry(config), read_machine(), WISHES)


def _unused(*_: object) -> NoReturn:
    raise AssertionError("nothing is fetched here")


async def _ask(engine: Engine) -> str:
    transport = httpx.AsyncHTTPTransport(uds=str(engine.socket))
    body = {
        "model": engine.plan.subject.spec.name,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 12,
    }
    async with httpx.AsyncClient(transport=transport, base_url="http://e", timeout=60) as client:
        answer = await client.post("/v1/chat/completions", json=body)
        return str(answer.json()["choices"][0]["message"]["content"])
