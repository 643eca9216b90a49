"""One tiny random model of each architecture in models.yaml, with the catalog's own flags."""

import asyncio
import contextlib
import json
import subprocess
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.catalog import Extension, ModelSpec, load_catalog
from serve.engine import EnginePool, PoolConfig, Runtimes
from serve.geometry import read_geometry
from serve.hardware import read_machine
from serve.plan import Subject, Wishes, make_plan
from serve.sources import DirSource
from serve.store import Access, Store

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

# What cannot be tried on a CPU, or not without the real repository.
NOT_HERE = {
    "DeepseekV32ForCausalLM": "vLLM has no sparse attention for CPUs",
    "GlmMoeDsaForCausalLM": "vLLM has no sparse attention for CPUs",
    "MiniMaxM2ForCausalLM": "vLLM's experts for CPUs have no sigmoid scoring without groups",
    "ChatGLMModel": "its tokenizer is Python of its repository",
}
SPECS: dict[str, ModelSpec] = {}
for spec in load_catalog().specs:
    if spec.architecture not in NOT_HERE:
        SPECS.setdefault(spec.architecture, spec)
# The wish keeps so many engines in a row small; everything else is what a user gets.
WISHES = Wishes(device="cpu", context_tokens=512, kv_cache_bytes=256 * 2**20)


class Loop:
    """An event loop in a thread, so that one pool with its spare serves many tests."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(200)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def enter(pool: EnginePool) -> None:
    await pool.__aenter__()
    pool.keep_spares()


@pytest.fixture(scope="module")
def pool(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loop, EnginePool]]:
    run = Path("/tmp") / f"ih-arch-{tmp_path_factory.getbasetemp().name}"
    config = PoolConfig(
        runtime=Runtimes(home, None).find("cpu"), run_dir=run, log_dir=run / "logs",
        cache_dir=run / "cache", isolation="auto", spares=1, compile="off",
        start_timeout_s=180, grace_s=4, extra_args=(),
    )  # fmt: skip
    loop = Loop()
    made = EnginePool(config)
    loop.run(enter(made))
    yield loop, made
    loop.run(made.__aexit__(None, None, None))
    loop.close()


@pytest.fixture(scope="module")
def models(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tiny models, built by one child, with the starter's tokenizer."""
    runtime = Runtimes(home, None).find("cpu")
    target = tmp_path_factory.mktemp("tiny")
    script = Path(__file__).with_name("make_tiny.py")
    starter = load_catalog().find("smollm2-135m-instruct")
    tokenizer = _store(home).weights(starter).path
    argv = [str(runtime.python), str(script), str(tokenizer), str(target), *sorted(SPECS)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


def _store(home: Path) -> Store:
    def unused(*_: object) -> Any:
        raise AssertionError("nothing is fetched here")

    return Store(home, Access("http://unused", None, home / "hf", unused, unused))


@pytest.mark.parametrize("architecture", sorted(SPECS))
def test_the_architecture_loads_with_the_catalogs_flags_and_answers(
    architecture: str, pool: tuple[Loop, EnginePool], models: Path
) -> None:
    spec = replace(SPECS[architecture], source=DirSource(models / architecture))
    first, second = answers(spec, "Hello", WISHES, pool)
    assert first["usage"]["completion_tokens"] == 8
    assert first["choices"][0]["message"] == second["choices"][0]["message"]


def test_a_prompt_longer_than_the_config_allows_is_read_with_the_extension(
    pool: tuple[Loop, EnginePool], models: Path
) -> None:
    rope = {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024,
        "rope_theta": 10000.0,
    }  # fmt: skip
    overrides = json.dumps({"max_position_embeddings": 4096, "rope_parameters": rope})
    spec = replace(
        SPECS["Qwen2ForCausalLM"],
        source=DirSource(models / "Qwen2ForCausalLM"),
        context_tokens=1024,
        extension=Extension(4096, "YaRN", (("hf-overrides", overrides),)),
    )
    first, second = answers(spec, "Hello " * 2000, replace(WISHES, context_tokens=4096), pool)
    assert first["usage"]["prompt_tokens"] > 2000
    assert first["choices"][0]["message"] == second["choices"][0]["message"]


def answers(
    spec: ModelSpec, prompt: str, wishes: Wishes, pool: tuple[Loop, EnginePool]
) -> list[dict[str, Any]]:
    """What an engine of this tiny model says when it is asked the same twice."""
    assert isinstance(spec.source, DirSource)
    folder = spec.source.path
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    subject = Subject(spec, folder, f"tiny-{folder.name}", size)
    config = json.loads((folder / "config.json").read_text())
    loop, engines = pool
    plan = make_plan(subject, read_geometry(config), read_machine(), wishes)
    engine = loop.run(engines.start(plan, "tiny-0"))
    try:
        transport = httpx.HTTPTransport(uds=str(engine.socket))
        with httpx.Client(transport=transport, base_url="http://engine", timeout=60) as client:
            body = {
                "model": spec.name, "max_tokens": 8, "temperature": 0, "ignore_eos": True,
                "messages": [{"role": "user", "content": prompt}],
            }  # fmt: skip
            replies = [client.post("/v1/chat/completions", json=body) for _ in range(2)]
        assert [reply.status_code for reply in replies] == [200, 200], replies[0].text
        return [reply.json() for reply in replies]
    finally:
        with contextlib.suppress(TimeoutError):
            loop.run(engine.stop(2))
