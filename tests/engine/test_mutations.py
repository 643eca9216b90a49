"""A real small model, mutated: every mutation is refused, and the unmutated one answers in vLLM."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from serve.engine import EnginePool, PoolConfig, Runtimes
from serve.geometry import read_geometry
from serve.hardware import read_machine
from serve.plan import Subject, make_plan
from serve.store import Store
from tests.campaigns import refusals
from tests.campaigns.subject import split
from tests.engine.stack import STARTER
from tests.engine.test_architectures import WISHES, Loop, enter
from tests.fakes.fake_hub import FakeHub
from tests.store.models import HUB_SPEC, REPO, access_at, store_at

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]
MUTATIONS = 60  # each family at least once


@pytest.fixture(scope="module")
def model(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A Llama of two layers with the starter's tokenizer, in two shards."""
    starter = Store(home, access_at(home)).list()
    tokenizer = next(held.path for held in starter if held.name == STARTER)
    target = tmp_path_factory.mktemp("tiny")
    script = Path(__file__).with_name("make_tiny.py")
    python = Runtimes(home, None).find("cpu").python
    argv = [str(python), str(script), str(tokenizer), str(target), HUB_SPEC.architecture]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = target / HUB_SPEC.architecture
    return split({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()})


def test_every_mutation_of_it_is_refused(model: dict[str, bytes], tmp_path: Path) -> None:
    report = refusals.run(model, MUTATIONS, 2, tmp_path)
    assert report.total == MUTATIONS and report.failures == []


def test_the_unmutated_one_loads_and_answers(
    home: Path, model: dict[str, bytes], tmp_path: Path, short_dir: Path
) -> None:
    with FakeHub({REPO: model}) as hub:
        weights = store_at(tmp_path, hub.endpoint).ready(HUB_SPEC)
    config = json.loads((weights.view / "config.json").read_text())
    subject = Subject(HUB_SPEC, weights.view, "mutations", weights.total_bytes)
    pool = EnginePool(PoolConfig(
        runtime=Runtimes(home, None).find("cpu"), run_dir=short_dir, log_dir=tmp_path / "logs",
        cache_dir=tmp_path / "cache", isolation="auto", spares=0, compile="off",
        start_timeout_s=240, grace_s=4, extra_args=(),
    ))  # fmt: skip
    loop = Loop()
    loop.run(enter(pool))
    try:
        plan = make_plan(subject, read_geometry(config), read_machine(), WISHES)
        engine = loop.run(pool.start(plan, "tiny-0"))
        transport = httpx.HTTPTransport(uds=str(engine.socket))
        with httpx.Client(transport=transport, base_url="http://engine", timeout=60) as client:
            body = {"model": HUB_SPEC.name, "max_tokens": 8, "ignore_eos": True}
            body |= {"messages": [{"role": "user", "content": "Hello"}]}
            answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] == 8
        loop.run(engine.stop(2))
    finally:
        loop.run(pool.__aexit__(None, None, None))
        loop.close()
