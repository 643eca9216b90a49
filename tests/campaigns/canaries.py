"""The campaign `canaries`: marked words by every way into a house, and a search for them."""

import random
from collections.abc import Callable
from pathlib import Path

from tests.campaigns.report import Report
from tests.stack import canary

PROMISE = (
    "Requests with marked words in prompts, parameters, headers, paths and file names, and with "
    "marked answers, by every route and every way to be refused, while gateways, an engine and "
    "the supervisor are killed; log level debug, every request audited, traced, batches on. Then "
    "all is searched that a process of the house has written or holds open: home, logs, ledger, "
    "journal, spool, `/dev/shm`, `/tmp`, metrics, audit export, traces; for every mark and every "
    "API key, as they are and in UTF-16, base64, hex, percent and JSON escapes. Each is found "
    "nowhere."
)


def run(count: int, seed: int, place: Path, told: Callable[[str], None] = lambda _: None) -> Report:
    """`count` requests, and again what nobody was there to answer."""
    report = Report("canaries", PROMISE, ("way", "answered with"))
    came = canary.run(place, count, random.Random(seed))
    report.trials.update(came.ways)
    report.failures += came.hits
    for hit in came.hits:
        told(hit)
    told(f"{came.n_places:,} places searched, {came.n_marked:,} answers were marked")
    return report
