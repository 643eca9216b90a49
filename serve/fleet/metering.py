"""Looks at what the cards of running engines use, for as long as there are any."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence

import httpx

from serve.fleet.energy import EnergyLog, Look
from serve.fleet.keeper import ModelStatus
from serve.hardware import Machine

EVERY_S = 1.0
_ANSWER_S = 1.0
_RUNNING = re.compile(r"^vllm:num_requests_running(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


async def watch(
    log: EnergyLog,
    status: Callable[[], Sequence[ModelStatus]],
    read_machine: Callable[[], Machine],
    every_s: float = EVERY_S,
) -> None:
    """Until cancelled, note each replica that has cards which count their energy."""
    while True:
        placed = [each for each in status() if each.gpus and each.socket]
        if placed:
            machine = await asyncio.to_thread(read_machine)
            counters = {gpu.uuid: gpu.energy_j for gpu in machine.gpus}
            at = time.time()
            running = await asyncio.gather(*(_running(each.socket or "") for each in placed))
            for each, count in zip(placed, running, strict=True):
                joules = [counters.get(uuid) for uuid in each.gpus]
                known = [one for one in joules if one is not None]
                if count is not None and len(known) == len(joules):
                    log.note(each.replica, Look(at, sum(known), count))
        await asyncio.sleep(every_s)


def running_in(page: str) -> int:
    """Requests that an engine works on, of its page of metrics."""
    return int(sum(float(value) for value in _RUNNING.findall(page)))


async def _running(socket: str) -> int | None:
    transport = httpx.AsyncHTTPTransport(uds=socket, verify=False)
    try:
        async with httpx.AsyncClient(
            transport=transport, base_url="http://engine", timeout=_ANSWER_S, trust_env=False
        ) as client:
            return running_in((await client.get("/metrics")).text)
    except httpx.HTTPError:
        return None
