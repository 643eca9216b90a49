"""The campaign `openapi`: generated requests for every operation of our OpenAPI document, right and
wrong ones, to a running gateway in front of a fake engine.
"""

import json
from collections.abc import Callable
from pathlib import Path

from serve.gateway.openapi import document
from serve.roster import Replica, Roster, ServedModel
from tests.campaigns.report import Report
from tests.gateway.api_walk import walk
from tests.gateway.stack import running_engine, running_gateway

PROMISE = (
    "Requests made by schemathesis out of our OpenAPI document, as it allows them and as it does "
    "not: each is answered with a status, a content type and a body that the document names, and "
    "never as an error of the server."
)


def run(count: int, seed: int, place: Path, told: Callable[[str], None] = lambda _: None) -> Report:
    """About `count` requests."""
    report = Report("openapi", PROMISE, ("answered with",))
    operations = sum(len(methods) for methods in json.loads(document())["paths"].values())
    with running_engine(place / "e.sock", "m") as engine:
        replica = Replica("m-0", f"unix:{engine.socket}")
        roster = Roster(1, (ServedModel("m", (), "ready", 4096, 7, (replica,)),))
        with running_gateway(place, roster, spool_folder=str(place / "spool")) as stack:
            done = walk(stack.url, max(count // (2 * operations), 1), seed, "m")
    for status, number in done.statuses.items():
        report.trials[(str(status),)] += number
    for failure in done.failures:
        told(failure)
    report.failures = [failure.replace("\n", " ")[:500] for failure in done.failures]
    return report
