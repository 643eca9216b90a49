"""scripts/campaign NAME [--n N] [--seed S] …: one long campaign, its result written to a page."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from serve.errors import RuntimeMissing
from tests.campaigns import (
    canaries,
    disk_full,
    gateway_kills,
    headers,
    journal,
    kills,
    openapi,
    refusals,
    routing,
)
from tests.campaigns.report import Report, write
from tests.campaigns.subject import subject

PAGE = Path(__file__).parents[2] / "docs" / "campaigns.md"
Run = Callable[[int, int, Path, Callable[[str], None]], Report]


@dataclass(frozen=True, slots=True)
class Campaign:
    """What it does, how many trials make it whole, and the program."""

    about: str
    count: int
    run: Run


def _mutations(count: int, seed: int, place: Path, told: Callable[[str], None]) -> Report:
    return refusals.run(subject(), count, seed, place, told)


CAMPAIGNS = {
    "mutations": Campaign("different mutations of a model, all refused", 1000, _mutations),
    "kills": Campaign("kill -9 at random moments of everything the store does", 200, kills.run),
    "disk_full": Campaign("no room at each write, at most at N of each work", 1000, disk_full.run),
    "openapi": Campaign("generated requests, answered as our API says", 10000, openapi.run),
    "headers": Campaign("our check of safetensors against the reference's", 20000, headers.run),
    "gateway-kills": Campaign(
        "kill -9 of gateways and supervisor under load", 100, gateway_kills.run
    ),
    "journal": Campaign("damage to journals: what it did not hit is read", 10000, journal.run),
    "canaries": Campaign("marked words by every way, then looked for", 10000, canaries.run),
    "routing": Campaign("the choice of a replica over simulated traffic", 10000, routing.run),
}


def main() -> int:
    arguments = _arguments()
    if arguments.name is None:
        for name, campaign in CAMPAIGNS.items():
            print(f"{name:13} {campaign.about} (--n {campaign.count})")
        return 0
    logging.disable()  # refusals are what we want to see, not hear
    campaign = CAMPAIGNS[arguments.name]
    count = arguments.n or campaign.count
    flags = gateway_kills.Variant(arguments.commit, arguments.ledger)
    run = campaign.run
    if run is gateway_kills.run:
        run = partial(run, variant=flags)
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        try:
            report = run(count, arguments.seed, Path(place), _told)
        except (disk_full.NoRights, RuntimeMissing, pytest.skip.Exception) as missing:
            _told(f"{arguments.name} cannot be run here: {missing!r}")
            return 2
    command = f"scripts/campaign {report.name} --n {count} --seed {arguments.seed}"
    write(arguments.page, report, command)
    print(report.summary())
    return 1 if report.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/campaign", description=__doc__)
    parser.add_argument("name", nargs="?", choices=CAMPAIGNS, help="without one, all are listed")
    parser.add_argument("--n", type=int, help="how many trials")
    parser.add_argument("--seed", type=int, default=1)
    usual, of_kills = gateway_kills.USUAL, "of gateway-kills: how books are kept"
    parser.add_argument("--commit", choices=("group", "each"), default=usual.commit, help=of_kills)
    parser.add_argument(
        "--ledger", choices=("sqlite", "postgresql"), default=usual.ledger, help=of_kills
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="where the result is written")
    arguments = parser.parse_args()
    is_usual = gateway_kills.Variant(arguments.commit, arguments.ledger) == usual
    if not is_usual and arguments.name != "gateway-kills":
        parser.error("--commit and --ledger are of gateway-kills")
    return arguments


def _told(problem: str) -> None:
    print(problem, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
