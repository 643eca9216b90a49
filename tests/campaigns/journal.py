"""Damage to journals: what it did not hit is read, and nothing that was not written."""

from collections.abc import Callable
from pathlib import Path

from tests.campaigns.report import Report
from tests.journal.damage import KINDS, problem


def run(
    count: int, seed: int, place: Path, told: Callable[[str], None] = lambda problem: None
) -> Report:
    """`count` damaged segments, the kinds of damage in turn."""
    report = Report(
        "journal",
        "A journal's segment is cut, torn, zeroed, overwritten or has a bit flipped: each record "
        "that the damage did not hit is read, once, and nothing is read that was not written.",
        ("damage",),
    )
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        if what := problem(seed * 1_000_000 + number, kind):
            report.failed(what, kind)
            told(what)
        else:
            report.passed(kind)
    return report
