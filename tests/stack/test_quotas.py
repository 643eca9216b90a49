"""Clients race for what is limited: two gateways, real processes, counted by the engines."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from serve.limits.layout import id_of
from tests.stack.agreement import accounts, disagreements
from tests.stack.client import Client, Seen
from tests.stack.house import House, running_house

_CLIENTS = 200
_ANSWER_TOKENS = 8
# One word is one token for the fake: long ones, so that our estimate of the input is not too low.
_WORDS = "internationalisation " * 20


@dataclass(frozen=True)
class Race:
    """What came of it."""

    seen: list[Seen]
    lasted_s: float

    @property
    def statuses(self) -> Counter[int]:
        return Counter(one.status for one in self.seen)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Each race has a model, and so an engine, of its own."""
    slow = {"rate": 40.0, "chunks": _ANSWER_TOKENS}
    narrow = {"limits": {"concurrency": 5}}
    price = {"price": {"input": 0, "output": 1_000_000}}  # one for each token of an answer
    models = {"budget": price, "of-key": {}, "of-tenant": {}, "of-model": narrow, "rates": {}}
    settings: dict[str, Any] = {
        "server": {"gateways": 2},
        "models": {name: terms for name, terms in models.items() if terms},
        "tenants": {"crowd": {"limits": {"concurrency": 6}}},
    }
    folder = tmp_path_factory.mktemp("quotas")
    with running_house(folder / "house", dict.fromkeys(models, slow), settings) as running:
        yield running


def race(house: House, model: str, keys: Sequence[str], clients: int = _CLIENTS) -> Race:
    """All of them at once, each with one request, on connections that are there already."""

    async def run() -> Race:
        ready = [Client(house.port, keys[number % len(keys)]) for number in range(clients)]
        await asyncio.gather(*(one.connect() for one in ready))
        body = {"model": model, "max_tokens": _ANSWER_TOKENS}
        body |= {"messages": [{"role": "user", "content": _WORDS}]}
        began_s = time.monotonic()
        seen = await asyncio.gather(
            *(one.ask(body | {"user": str(number)}) for number, one in enumerate(ready))
        )
        for one in ready:
            one.close()
        return Race(seen, time.monotonic() - began_s)

    return asyncio.run(run())


def test_five_at_once_on_a_budget_for_one(house: House) -> None:
    key, id = house.create_key("poor", "--budget", f"{_ANSWER_TOKENS}/day")
    began = time.time()
    race_ = race(house, "budget", [key], 5)
    assert race_.statuses == {200: 1, 429: 4}
    told = accounts(house, began, [("key", id)])
    assert disagreements(race_.seen, told) == []
    (row,) = told.rows.values()
    assert row["cost_nanos"] == _ANSWER_TOKENS * 10**9
    assert house.limits()[id_of("key", id)].day_nanos == row["cost_nanos"]
    assert race(house, "budget", [key], 5).statuses == {429: 5}, "it is used up"
    assert accounts(house, began).rows.keys() == {row["id"]}


@pytest.mark.parametrize(
    ("model", "tenant", "flags", "n_keys", "most"),
    [
        ("of-key", "one", ("--concurrency", "7", "--rpm", "100k"), 1, 7),
        ("of-tenant", "crowd", (), 2, 6),
        ("of-model", "many", (), 1, 5),
    ],
)
def test_nobody_more_is_in_than_may_be(
    house: House, model: str, tenant: str, flags: tuple[str, ...], n_keys: int, most: int
) -> None:
    keys = [house.create_key(tenant, *flags) for _ in range(n_keys)]
    began = time.time()
    ran = race(house, model, [text for text, _ in keys])
    engine = house.ask_engine(model, "/fake/info")
    assert engine["most_running"] <= most
    assert ran.statuses.keys() == {200, 429}
    assert engine["received"] == ran.statuses[200] >= most, "the refused have cost nothing"
    assert len({one.id.split("-")[0] for one in ran.seen}) == 2, "both gateways were asked"
    name = {"of-key": keys[0][1], "of-tenant": tenant, "of-model": model}[model]
    told = accounts(house, began, [(model.removeprefix("of-"), name)])
    assert disagreements(ran.seen, told) == []
    assert len(told.rows) == ran.statuses[200]
    if "--rpm" in flags:  # who was refused for the one has taken nothing of the other
        row = house.limits()[id_of("key", name)]
        ns_per_request = 60 * 10**9 // 100_000
        taken = (row.request_tat - time.monotonic_ns()) / ns_per_request
        assert taken <= ran.statuses[200]


def test_no_more_requests_a_minute(house: House) -> None:
    key, id = house.create_key("hasty", "--rpm", "60")
    began = time.time()
    ran = race(house, "rates", [key])
    assert ran.statuses.keys() == {200, 429}
    assert 60 <= ran.statuses[200] <= 60 + ran.lasted_s + 1
    assert disagreements(ran.seen, accounts(house, began, [("key", id)])) == []


def test_no_more_tokens_a_minute(house: House) -> None:
    limit = 6000
    key, id = house.create_key("greedy", "--tpm", str(limit))
    began = time.time()
    first, second = race(house, "rates", [key]), race(house, "rates", [key])
    ran = Race(first.seen + second.seen, first.lasted_s + second.lasted_s)
    assert ran.statuses.keys() == {200, 429}
    told = accounts(house, began, [("key", id)])
    assert disagreements(first.seen, told) == disagreements(second.seen, told) == []
    rows = told.rows.values()
    used = [row["input_tokens"] + row["output_tokens"] for row in rows]
    leaked = limit / 60 * (time.time() - began)
    reservation = len(_WORDS) + _ANSWER_TOKENS
    assert limit / 4 < sum(used) <= limit + leaked + reservation
