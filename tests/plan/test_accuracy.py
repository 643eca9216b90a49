"""The promises of docs/plan-accuracy.md, kept; and the page as its program makes it."""

from pathlib import Path

import pytest

from tests.plan.accuracy.__main__ import PAGE
from tests.plan.accuracy.newer import newer_rows
from tests.plan.accuracy.outcomes import Outcome, Pair, Promise, outcomes_of, promises
from tests.plan.accuracy.page import page_of
from tests.plan.accuracy.truth import Row, launch_of, read_rows, version_of
from tests.plan.known import FACTS

has_facts = pytest.mark.skipif(
    not (FACTS / "memory_ground_truth.csv").exists(),
    reason="the folder of model facts does not lie beside this checkout",
)


@pytest.fixture(scope="module")
def outcomes() -> tuple[Outcome, ...]:
    return outcomes_of(FACTS, read_rows(FACTS))


@has_facts
def test_the_promises_are_kept(outcomes: tuple[Outcome, ...]) -> None:
    tokens, before, after, refused = promises(outcomes)
    assert len(tokens.errors) >= 15 and tokens.is_kept
    assert len(before.errors) >= 10 and before.is_kept
    assert len(after.errors) >= 10 and after.is_kept
    assert len(refused.errors) == 5 and refused.is_kept


@has_facts
def test_starts_that_went_well_are_not_refused(outcomes: tuple[Outcome, ...]) -> None:
    for outcome in outcomes:
        row = outcome.row
        if outcome.tokens and not row.is_refusal:
            assert outcome.tokens.predicted >= float(row["max_model_len"] or 0), row["id"]


@has_facts
def test_weights_are_those_of_the_log(outcomes: tuple[Outcome, ...]) -> None:
    """Row 5 has a vision encoder too, 12 was loaded on another maker's card, 34 was quantised
    while it was loaded."""
    off = {
        outcome.row["id"]
        for outcome in outcomes
        if outcome.weights and abs(outcome.weights.error) > 0.005
    }
    assert off <= {"5", "12", "34"}


@has_facts
def test_newer_engines_are_met_from_the_card_alone() -> None:
    for outcome in outcomes_of(FACTS, newer_rows()):
        assert outcome.available is not None and abs(outcome.available.error) < 0.03
        assert outcome.tokens is None or abs(outcome.tokens.error) < 0.001


@has_facts
def test_the_page_is_fresh(outcomes: tuple[Outcome, ...]) -> None:
    made = page_of(outcomes, outcomes_of(FACTS, newer_rows()))
    assert PAGE.read_text() == made, "run scripts/plan-accuracy with the folder of model facts"


@pytest.mark.parametrize(
    ("stated", "version"),
    [("0.11.0 (image vllm/vllm-openai:v0.11.0)", "0.11"), ("~0.6.5", "0.6"), ("", "0.10"),
     ("v1 (2025)", "0.10"), ("vllm-ascend ~0.9", "0.9"), ("unheard of", "0.10")],
)  # fmt: skip
def test_versions_in_words(stated: str, version: str) -> None:
    assert version_of(Row({"vllm_version": stated})) == version


def test_a_row_without_a_config_is_not_planned(tmp_path: Path) -> None:
    assert launch_of(tmp_path, Row({"id": "36", "config_file": ""})) is None


def test_a_promise_needs_rows_and_enough_of_them() -> None:
    half = Promise("", 0.01, 0.5, (0.0, 0.02))
    assert (half.kept, half.is_kept) == (1, True)
    assert not Promise("", 0.01, 0.95, (0.0, 0.02)).is_kept
    assert not Promise("", 0.01, 0.95, ()).is_kept
    assert Pair(101, 100).error == pytest.approx(0.01)
