"""A hundred streams at once, one of them cut."""

import asyncio
import json
import re
import time

import httpx
import pytest

from tests.engine.stack import STARTER, Stack

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

STREAMS = 100
TOKENS = 60
RUNNING = re.compile(r"^vllm:num_requests_running\{.*\} ([0-9.]+)$", re.MULTILINE)


async def stream(client: httpx.AsyncClient, number: int, begun: asyncio.Semaphore) -> int:
    """Read one whole stream; the number of tokens that its usage names."""
    body = {
        "model": STARTER, "prompt": f"Story number {number}: once upon a time", "stream": True,
        "max_tokens": TOKENS, "ignore_eos": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    events: list[str] = []
    async with client.stream("POST", "/v1/completions", json=body) as reply:
        assert reply.status_code == 200
        async for line in reply.aiter_lines():
            if line.startswith("data: "):
                if not events:
                    begun.release()
                events.append(line[6:])
    assert events[-1] == "[DONE]"
    return int(json.loads(events[-2])["usage"]["completion_tokens"])


async def running_count(engine: httpx.AsyncClient) -> int:
    """Asked ten times a second at most: the answers take the engine's own time."""
    await asyncio.sleep(0.1)
    found = RUNNING.search((await engine.get("/metrics")).text)
    assert found is not None
    return int(float(found[1]))


async def cut_one_of_many(stack: Stack) -> None:
    limits = httpx.Limits(max_connections=STREAMS + 1)
    transport = httpx.AsyncHTTPTransport(uds=stack.model().socket)
    async with (
        httpx.AsyncClient(base_url=stack.url, timeout=240, limits=limits) as client,
        httpx.AsyncClient(base_url="http://engine", transport=transport, timeout=30) as engine,
    ):
        begun = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(stream(client, n, begun)) for n in range(STREAMS)]
        for _ in range(STREAMS):
            await begun.acquire()
        while await running_count(engine) != STREAMS:
            assert not any(task.done() for task in tasks), "too fast to have all at once"
        victim, *others = tasks
        victim.cancel()
        cut_s = time.monotonic()
        asked_s = cut_s
        while await running_count(engine) != STREAMS - 1:
            # Two of the engine's steps, each a quarter of a second here: one that runs, and the
            # next, which tells. Straight at its socket it takes as long.
            assert asked_s - cut_s < 1.0, "the engine still runs the cut request"
            asked_s = time.monotonic()
        print(f"gone when asked after {asked_s - cut_s:.2f} s")
        assert not any(task.done() for task in others), "the count may have fallen by an end"
        assert await asyncio.gather(*others) == [TOKENS] * (STREAMS - 1)
        assert await running_count(engine) == 0


def test_one_cut_stream_leaves_the_engine_and_the_others_complete(stack: Stack) -> None:
    asyncio.run(cut_one_of_many(stack))
