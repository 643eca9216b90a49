"""The real vLLM on models that bring Python: it runs where it is approved, shut in, else never."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.catalog import ModelSpec, load_catalog
from serve.engine import Engine, EnginePool
from serve.engine.runtime import Runtime
from serve.errors import StartFailed, UnsafeWeights
from serve.geometry import read_geometry
from serve.hardware import read_machine
from serve.plan import Subject, Wishes, make_plan
from serve.sources import HubSource
from serve.store import Access, Store, Weights
from tests.engine.pools import Turns
from tests.fakes.fake_hub import FakeHub

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

REPO = "org/tiny"
WISHES = Wishes(device="cpu", context_tokens=512, kv_cache_bytes=256 * 2**20)
# Says that it ran and what it can reach, then is what it should be.
PYTHON = """
import socket
from transformers import LlamaConfig
try:
    socket.create_connection(("127.0.0.1", {port}), 5)
    print("PYTHON OF THE REPOSITORY: reached the network", flush=True)
except OSError as error:
    print("PYTHON OF THE REPOSITORY: no network", flush=True)
class TinyConfig(LlamaConfig):
    model_type = "tiny_of_its_own"
"""
SAYING = "PYTHON OF THE REPOSITORY"


@pytest.fixture(scope="module")
def tiny(models: Path) -> dict[str, bytes]:
    """A tiny random Llama's files."""
    return {file.name: file.read_bytes() for file in (models / "LlamaForCausalLM").iterdir()}


@pytest.fixture(scope="module")
def own(runtime: Runtime, cache: Path) -> Iterator[Turns]:
    """With a cache of their own: a repository's Python is none of other tests' business."""
    with (
        tempfile.TemporaryDirectory(prefix="ih-", dir="/tmp") as folder,
        Turns(runtime, shutil.copytree(cache, Path(folder) / "cache"), Path(folder)) as turns,
    ):
        yield turns


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: {}}) as running:
        yield running


@pytest.fixture
def spec() -> ModelSpec:
    starter = load_catalog().find("smollm2-135m-instruct")
    return replace(starter, name="tiny", source=HubSource(REPO), alternatives=())


def _store(folder: Path, endpoint: str) -> Store:
    def unused(*_: object) -> Any:
        raise AssertionError("nothing is converted here")

    return Store(folder, Access(endpoint, None, folder / "hf", unused, unused))


def naming_python(tiny: dict[str, bytes], hub: FakeHub, **changes: str) -> dict[str, bytes]:
    config = json.loads(tiny["config.json"]) | changes
    config["auto_map"] = {"AutoConfig": "configuration_tiny.TinyConfig"}
    port = hub.endpoint.rpartition(":")[2]
    return tiny | {
        "config.json": json.dumps(config).encode(),
        "configuration_tiny.py": PYTHON.replace("{port}", port).encode(),
    }


def served(spec: ModelSpec, weights: Weights, turns: Turns) -> tuple[str, str]:
    """What the model answers, and the engine's log. StartFailed."""
    subject = Subject(spec, weights.view, weights.digest, weights.total_bytes)
    geometry = read_geometry(Store.config(weights), Store.tensors(weights))
    plan = make_plan(subject, geometry, read_machine(), WISHES)

    async def run(pool: EnginePool) -> tuple[str, str]:
        engine = await pool.start(plan, "tiny-0")
        try:
            return await _answer(engine, spec.name), engine.log_path.read_text()
        finally:
            with contextlib.suppress(TimeoutError):
                await engine.stop(2)

    told: tuple[str, str] = turns.loop.run(run(next(turns).pool))
    return told


async def _answer(engine: Engine, name: str) -> str:
    transport = httpx.AsyncHTTPTransport(uds=str(engine.socket))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://engine", timeout=60
    ) as client:
        body = {"model": name, "prompt": "Hello", "max_tokens": 4, "ignore_eos": True}
        answer = await client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def test_unneeded_python_never_runs(
    tiny: dict[str, bytes], hub: FakeHub, spec: ModelSpec, own: Turns, tmp_path: Path
) -> None:
    """Another tool has put it right beside the weights, and config.json names it."""
    hub.repos[REPO] = naming_python(tiny, hub)
    store, spec = _store(tmp_path, hub.endpoint), replace(spec, remote_code="unneeded")
    snapshot = store.pull(spec).path
    (snapshot / "configuration_tiny.py").write_bytes(hub.repos[REPO]["configuration_tiny.py"])
    text, log = served(spec, store.ready(spec), own)
    assert text and SAYING not in log
    assert str(store.weights(spec).view) in log, "what vLLM was given"


def test_approved_python_runs_without_a_network(
    tiny: dict[str, bytes], hub: FakeHub, spec: ModelSpec, own: Turns, tmp_path: Path
) -> None:
    """A kind of model that nobody but its own Python knows; the Hub itself is out of reach."""
    hub.repos[REPO] = naming_python(tiny, hub, model_type="tiny_of_its_own")
    store = _store(tmp_path, hub.endpoint)
    with pytest.raises(UnsafeWeights):
        store.ready(spec)
    plain = replace(spec, remote_code="unneeded")
    with pytest.raises(StartFailed) as failed:
        served(plain, store.ready(plain), own)
    assert SAYING not in Path(failed.value.log_path).read_text()
    approved = replace(spec, remote_code=hub.commit(REPO))
    text, log = served(approved, store.ready(approved), own)
    assert text and f"{SAYING}: no network" in log and f"{SAYING}: reached" not in log
