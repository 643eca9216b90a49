"""A real small model, mutated: every mutation is refused, and the unmutated one answers in vLLM."""

import json
from pathlib import Path

import httpx
import pytest

from serve.geometry import read_geometry
from serve.hardware import read_machine
from serve.plan import Subject, make_plan
from tests.campaigns import refusals
from tests.campaigns.subject import split
from tests.engine.pools import Turns
from tests.engine.test_architectures import WISHES
from tests.fakes.fake_hub import FakeHub
from tests.store.models import HUB_SPEC, REPO, store_at

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]
MUTATIONS = 60  # each family at least once


@pytest.fixture(scope="module")
def model(models: Path) -> dict[str, bytes]:
    """A Llama of two layers with the starter's tokenizer, in two shards."""
    folder = models / HUB_SPEC.architecture
    return split({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()})


def test_every_mutation_of_it_is_refused(model: dict[str, bytes], tmp_path: Path) -> None:
    report = refusals.run(model, MUTATIONS, 2, tmp_path)
    assert report.total == MUTATIONS and report.failures == []


def test_the_unmutated_one_loads_and_answers(
    turns: Turns, model: dict[str, bytes], tmp_path: Path
) -> None:
    with FakeHub({REPO: model}) as hub:
        weights = store_at(tmp_path, hub.endpoint).ready(HUB_SPEC)
    config = json.loads((weights.view / "config.json").read_text())
    subject = Subject(HUB_SPEC, weights.view, "mutations", weights.total_bytes)
    plan = make_plan(subject, read_geometry(config), read_machine(), WISHES)
    engine = turns.loop.run(next(turns).pool.start(plan, "tiny-0"))
    transport = httpx.HTTPTransport(uds=str(engine.socket))
    with httpx.Client(transport=transport, base_url="http://engine", timeout=60) as client:
        body = {"model": HUB_SPEC.name, "max_tokens": 8, "ignore_eos": True}
        body |= {"messages": [{"role": "user", "content": "Hello"}]}
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 8
    turns.loop.run(engine.stop(2))
