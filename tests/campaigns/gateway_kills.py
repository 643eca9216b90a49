"""The campaign `gateway-kills`: gateways and supervisors that are killed while requests run."""

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Literal

from tests.campaigns.report import Report
from tests.ledger.postgres import Postgres
from tests.stack.agreement import accounts, disagreements
from tests.stack.fire import KNOBS, SETTINGS, VICTIMS, make_keys, under_fire
from tests.stack.house import House, running_house, until

PROMISE = (
    "`kill -9` of a gateway, of both gateways, or of the supervisor, at a random moment while "
    "requests run (streams and whole answers, for two models, by clients of which some leave). "
    "After each: what clients were told, what engines did, what the ledger holds and what the "
    "limits count is the same for every request that came to its end; what was cut off is in the "
    "books once, as an estimate between what its client got and what its engine made; nobody is "
    "in any more; and the engines still are the same processes. (What a gateway was settling when "
    "it was killed may count twice for the limits, until a supervisor starts; never too little.)"
)
# Of a gateway most often: it is what works on requests.
_TURNS = (VICTIMS[0], VICTIMS[2], VICTIMS[0], VICTIMS[1], VICTIMS[0], VICTIMS[2])
_GATEWAYS = {VICTIMS[0]: 1, VICTIMS[1]: 2}


@dataclass(frozen=True, slots=True)
class Variant:
    """How the house keeps its books: `commit` as in its settings, and where the ledger is."""

    commit: Literal["group", "each"] = "group"
    ledger: Literal["sqlite", "postgresql"] = "sqlite"

    def flags(self) -> str:
        """As the command line has them; empty for the usual one."""
        commit = " --commit each" if self.commit == "each" else ""
        return commit + (" --ledger postgresql" if self.ledger == "postgresql" else "")

    def promise(self) -> str:
        """In words."""
        more = []
        if self.commit == "each":
            more.append("with `commit: each`, where an end is on the disk before its client has it")
        if self.ledger == "postgresql":
            more.append("with the ledger in a PostgreSQL server")
        return f"As `gateway-kills`, {' and '.join(more)}." if more else PROMISE


USUAL = Variant()


def run(
    count: int, seed: int, place: Path, told: Callable[[str], None] = lambda _: None,
    requests: int = 1000, variant: Variant = USUAL,
) -> Report:  # fmt: skip
    """`count` kills, each while so many `requests` run."""
    name = f"gateway-kills{variant.flags()}"
    report = Report(name, variant.promise(), ("killed", "a request in the books"))
    dice = random.Random(seed)
    with _ledger(variant) as ledger, _house(place, ledger) as house:
        keys, engines, n_killed = make_keys(house), house.engines(), 0
        for number, victim in zip(range(count), cycle(_TURNS), strict=False):
            name = f"{seed}-{number}"
            seen, began = under_fire(house, keys.texts, requests, victim, dice, name)
            until(lambda: _is_whole(house))
            of = accounts(house, began, keys.limited)
            # A new supervisor tells the limits what the ledger knows.
            n_killed = 0 if victim == VICTIMS[2] else n_killed + _GATEWAYS[victim]
            wrong = disagreements(seen, of, n_killed)
            if house.engines() != engines:
                wrong.append(f"other engines: {house.engines()}, not {engines}")
            for row in of.rows.values():
                report.passed(victim, row["outcome"])
            for _ in range(len(seen) - len(of.rows)):
                report.passed(victim, "not there: it did not come as far")
            for problem in wrong:
                report.failures.append(f"kill {number}, {victim}: {problem}")
                told(report.failures[-1])
    return report


@contextlib.contextmanager
def _ledger(variant: Variant) -> Iterator[dict[str, str]]:
    """The settings of the ledger, where it is there. Skips if there is no PostgreSQL server."""
    told: dict[str, str] = {"commit": variant.commit}
    if variant.ledger == "sqlite":
        yield told
        return
    server = Postgres()
    try:
        yield told | {"url": server.url()}
    finally:
        server.remove()


def _house(place: Path, ledger: dict[str, str]) -> contextlib.AbstractContextManager[House]:
    return running_house(place / "house", KNOBS, SETTINGS | {"ledger": ledger})


def _is_whole(house: House) -> bool:
    return house.process is not None and len(house.gateways()) == 2
