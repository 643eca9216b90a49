"""Many requests at once, streams and whole answers, of clients that leave and of those that stay;
and somebody who kills meanwhile. Whatever dies, clients come again until all have been asked.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.stack.client import CHAT, Client, Seen, is_up
from tests.stack.house import House

VICTIMS = "a gateway", "all gateways", "the supervisor"
KNOBS: dict[str, dict[str, object]] = {"quick": {}, "slow": {"rate": 60.0}}
SETTINGS = {
    "server": {"gateways": 2},
    "engine": {"grace": "60s"},  # that a machine which is busy restarts in time
    "models": {"quick": {"price": {"input": 1, "output": 2}, "limits": {"tpm": "900M"}}},
    "tenants": {"red": {"limits": {"tokens_per_day": "900M"}}},
}
_WORKERS = 40
_LEAVING = 0.08  # share of the clients
_LATEST_LEAVE_S = 0.1
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Keys:
    """Texts, and owner and name of all that have limits."""

    texts: tuple[str, ...]
    limited: tuple[tuple[str, str], ...]


def make_keys(house: House) -> Keys:
    """Two keys with limits that nobody reaches, so that everything is counted."""
    made = [house.create_key(tenant, "--concurrency", "500") for tenant in ("red", "blue")]
    limited = [("key", id) for _, id in made] + [("tenant", "red"), ("model", "quick")]
    return Keys(tuple(text for text, _ in made), tuple(limited))


async def fire(
    house: House, keys: Sequence[str], count: int, dice: random.Random, name: str
) -> list[Seen]:
    """Ask `count` times; what each of the clients saw. `name`: begins what they are called."""
    seen: list[Seen] = []
    numbers = iter(range(count))
    plans = [random.Random(dice.random()) for _ in range(_WORKERS)]

    async def work(own: random.Random) -> None:
        client = Client(house.port, own.choice(keys))
        for number in numbers:
            one = await _ask(client, own, f"{name}-{number}")
            seen.append(one)
            while one.status == 0 and not one.has_left and not await is_up(house.port):
                await asyncio.sleep(_PAUSE_S)
        client.close()

    await asyncio.gather(*map(work, plans))
    return seen


async def kill(house: House, victim: str, after_s: float, dice: random.Random) -> None:
    """SIGKILL; the supervisor is started again."""
    pids = house.gateways()
    await asyncio.sleep(after_s)
    if victim == "the supervisor":
        await asyncio.to_thread(house.kill)
        await asyncio.to_thread(house.start)
        return
    for pid in pids if victim == "all gateways" else [dice.choice(pids)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def under_fire(
    house: House, keys: Sequence[str], count: int, victim: str, dice: random.Random, name: str
) -> tuple[list[Seen], float]:
    """What clients saw of `count` requests while `victim` was killed, and when they began."""

    async def run() -> list[Seen]:
        # By itself this takes about so long; a kill may come before, amid, or after.
        after_s = dice.uniform(0, count / 400)
        seen, _ = await asyncio.gather(
            fire(house, keys, count, dice, name), kill(house, victim, after_s, dice)
        )
        return seen

    began = time.time()
    return asyncio.run(run()), began


async def _ask(client: Client, dice: random.Random, user: str) -> Seen:
    words = " ".join(["word"] * dice.randint(1, 40))
    body: dict[str, object] = {
        "model": dice.choice(tuple(KNOBS)),
        "messages": [{"role": "user", "content": words}],
        "max_tokens": dice.randint(1, 8),
        "user": user,
    }
    if dice.random() < 0.5:
        body["stream"] = True
        if dice.random() < 0.7:
            body["stream_options"] = {"include_usage": True}
    leaves = dice.random() < _LEAVING
    leave_after_s = dice.uniform(0.001, _LATEST_LEAVE_S) if leaves else None
    return await client.ask(body, CHAT, leave_after_s=leave_after_s)
