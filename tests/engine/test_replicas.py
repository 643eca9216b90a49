"""Two replicas of the starter, one core each, behind a gateway that has them as upstreams."""

import asyncio
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from serve.fleet import ModelStatus
from tests.engine.conversations import Talks, Told, talk
from tests.engine.front import Front
from tests.engine.stack import STARTER, Stack, running, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

_CORES = re.compile(r"core ids=\[([0-9, ]+)\]")
TALKS = Talks(conversations=10, turns=4, users=5)
TERMS = {"models": {STARTER: {"replicas": 2}}}


@pytest.fixture(scope="module")
def two(home: Path) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="ih-", dir="/tmp") as folder:
        config = Path(folder) / "inhouse.yaml"
        config.write_text(yaml.safe_dump(TERMS))
        flags = ("--config", str(config), "--spares", "0", "--context", "2048")
        with running(Stack(home, Path(folder) / "run", *flags)) as stack:
            # It answers as soon as one of them is ready.
            wait_until(lambda: _are_ready(stack), 120, "both replicas are ready")
            yield stack


def test_each_engine_has_a_core_of_its_own(two: Stack) -> None:
    statuses = two.status().models
    assert [status.replica for status in statuses] == [f"{STARTER}-0", f"{STARTER}-1"]
    there = sorted(os.sched_getaffinity(0))
    assert [_bound(status) for status in statuses] == [[core] for core in there[:2]]


def test_conversations_find_on_two_replicas_what_they_find_on_one(two: Stack) -> None:
    sockets = [f"unix:{status.socket}" for status in two.status().models]
    models = {
        "prefix": {"url": sockets, "model": STARTER},
        "round-robin": {"url": sockets, "model": STARTER, "routing": "round-robin"},
        "one": {"url": sockets[:1], "model": STARTER},
    }
    with (
        tempfile.TemporaryDirectory(prefix="ih-", dir="/tmp") as folder,
        Front(Path(folder), models) as front,
    ):
        found = asyncio.run(_ask_all(front.url, list(models)))
    shares = {name: told.cached_share for name, told in found.items()}
    print({name: f"{share:.1%}" for name, share in shares.items()})
    assert all(told.requests == TALKS.conversations * TALKS.turns for told in found.values())
    assert shares["prefix"] > shares["one"] - 0.05
    assert shares["prefix"] > shares["round-robin"] + 0.05


def _are_ready(stack: Stack) -> bool:
    return {status.state for status in stack.status().models} == {"ready"}


async def _ask_all(url: str, models: list[str]) -> dict[str, Told]:
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        # Other texts for each: none finds what another one left in the caches.
        return {name: await talk(client, name, TALKS, n) for n, name in enumerate(models)}


def _bound(status: ModelStatus) -> list[int]:
    """The cores that an engine says that it has bound its threads to."""
    assert status.log_path is not None
    found = _CORES.findall(Path(status.log_path).read_text())
    return [int(core) for core in found[-1].split(",")]
