"""Four accounts of the same requests, by four who do not know of each other: do they agree?

Clients know what they were told, engines what they did, the ledger what is charged, the table of
limits what is used and who is in. Pure, but for `Round.accounts`, which asks all of them.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve.limits.layout import id_of
from tests.stack.client import Seen
from tests.stack.house import House, until

# What may stand in the books of a request that did not come to its end.
_CUT = {"crashed", "left", "gone", "drained", "error"}
_OWNERS = "key", "tenant", "model"
_QUIET_S = 45.0
LARGEST_TOKENS = 60  # of one request of `tests.stack.fire`


@dataclass(frozen=True)
class Served:
    """What an engine knows of one request. `times`: it got one with this id."""

    user: str
    prompt_tokens: int
    output_tokens: int
    is_whole: bool
    times: int


@dataclass(frozen=True)
class Accounts:
    """`rows` of the ledger and `served` by the engines, both by the request's id; `used`: day's
    tokens of limited keys, tenants and models: (in the table of limits, in the ledger).

    Whoever is killed between settling and writing that down is charged by the limits as what it
    took and then as what was cut off, so they may be ahead by a request, and are never behind."""

    rows: Mapping[str, Mapping[str, Any]]
    served: Mapping[str, Served]
    used: Mapping[str, tuple[int, int]]


def accounts(house: House, since: float, limited: Sequence[tuple[str, str]] = ()) -> Accounts:
    """Once nobody is in any more. `since`: unix seconds; engines tell what they have not told yet.
    `limited`: owner and name of those whose limits are compared."""
    until(house.is_quiet, _QUIET_S)
    found = house.rows("SELECT * FROM usage WHERE at >= ?", since)
    served = {
        id: Served(*row)
        for model in house.models
        for id, row in house.ask_engine(model, "/fake/served").items()
    }
    table, midnight = house.limits(), time.time() // 86400 * 86400
    used = {}
    for owner, name in limited:
        sums = house.rows(
            "SELECT sum(input_tokens + output_tokens) AS tokens FROM usage "
            f"WHERE {owner} = ? AND at >= ?", name, midnight,
        )  # fmt: skip
        row = table.get(id_of(owner, name))
        used[f"{owner} {name}"] = row.day_tokens if row else 0, int(sums[0]["tokens"] or 0)
    return Accounts({row["id"]: row for row in found}, served, used)


def disagreements(seen: Sequence[Seen], of: Accounts, n_killed: int = 0) -> list[str]:
    """Everything that does not fit; empty if all do agree. `n_killed`: so many gateways were."""
    wrong = [f"{id}: another request had its id" for id in of.rows if "~" in id]
    wrong += [f"{id}: sent {one.times} times" for id, one in of.served.items() if one.times != 1]
    # An engine gets a request after its beginning was noted, so there is a row of each.
    wrong += [f"{id}: served, and not in the books" for id in of.served.keys() - of.rows.keys()]
    shown = Counter(one.id for one in seen if one.id)
    wrong += [f"{id}: shown to {n} clients" for id, n in shown.items() if n > 1]
    by_user = {one.user: one for one in seen}
    by_id = {one.id: one for one in seen if one.id}
    for one in seen:
        wrong += _client(one, of)
    for id, row in of.rows.items():
        engine = of.served.get(id)
        client = by_id.get(id) or (by_user.get(engine.user) if engine else None)
        wrong += [f"{id}: {problem}" for problem in _row(row, engine, client)]
    for name, (here, there) in of.used.items():
        if not 0 <= here - there <= n_killed * LARGEST_TOKENS:
            wrong.append(f"{name}: limits know of {here} tokens, the ledger of {there}")
    return wrong


def _client(one: Seen, of: Accounts) -> list[str]:
    if one.status == 0 or one.status >= 400:
        return [] if one.id not in of.rows or one.status in (0, 502, 503) else [f"{one}: a row"]
    row = of.rows.get(one.id)
    if row is None:
        return [f"{one.id}: answered, and not in the books"]
    if not one.is_ended:
        return []
    wrong = []
    if row["outcome"] != "ok" or row["is_estimated"]:
        wrong.append(f"{one.id}: its client has all of it, the books say {row['outcome']}")
    booked = row["input_tokens"], row["output_tokens"]
    if one.tokens is not None and one.tokens != booked:
        wrong.append(f"{one.id}: its client was told {one.tokens}, charged are {booked}")
    if one.events and one.events != row["output_tokens"]:
        wrong.append(f"{one.id}: its client has {one.events} tokens, charged are {booked}")
    return wrong


def _row(row: Mapping[str, Any], engine: Served | None, client: Seen | None) -> list[str]:
    booked = row["input_tokens"], row["output_tokens"]
    if row["outcome"] == "ok":
        if engine is None or not engine.is_whole:
            return ["ok, but no engine came to its end"]
        did = engine.prompt_tokens, engine.output_tokens
        return [] if did == booked else [f"the engine did {did}, charged are {booked}"]
    if row["outcome"] not in _CUT:
        return [f"outcome {row['outcome']}"]
    wrong = []
    most = engine.output_tokens if engine else 0
    least = client.events if client else 0
    # The last event of a stream ([DONE]) and the one with the usage have been counted, perhaps.
    if not least <= row["output_tokens"] <= most + 2 or (not most and row["output_tokens"]):
        wrong.append(
            f"{row['outcome']}: {least} tokens came, {most} were made, "
            f"{row['output_tokens']} are charged"
        )
    if row["output_tokens"] and not row["is_estimated"] and booked[1] != most:
        wrong.append(f"{row['outcome']}: {booked} is no estimate")
    return wrong
