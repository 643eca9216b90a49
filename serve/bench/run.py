"""Load models: how requests are offered."""

import asyncio
from collections.abc import Iterator
from itertools import islice

from serve.bench.client import Target, Timing, request
from serve.bench.report import LoadReport, report
from serve.bench.workload import Prompt


async def closed_loop(
    target: Target, prompts: Iterator[Prompt], streams: int, requests: int
) -> LoadReport:
    """`requests` requests, `streams` of them in flight at any time, each sent as one ends.

    A closed loop asks what a server can do, not how it bears a given rate: a slow answer delays
    the next question (coordinated omission), so its latencies are no promise at a rate.
    """
    offered = islice(prompts, requests)
    timings: list[Timing] = []

    async def stream() -> None:
        for prompt in offered:
            timings.append(await request(target, prompt))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(streams, requests)):
            group.create_task(stream())
    return report(streams, timings)
