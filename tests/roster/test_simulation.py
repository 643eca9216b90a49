"""Simulated traffic: what is promised of the choice, over a few seeds of the campaign."""

import pytest

from tests.campaigns import routing
from tests.roster.foresight import foreseen_share
from tests.roster.simulation import Traffic, simulate


def test_promises_hold_over_random_traffic() -> None:
    report = routing.run(25, 1)
    assert report.total == 25 and report.failures == []


@pytest.mark.parametrize("replicas", [2, 4])
def test_conversations_find_as_much_as_on_one_large_replica(replicas: int) -> None:
    traffic = Traffic(replicas=replicas)
    prefix, single = simulate(traffic, "prefix", 1), simulate(traffic.on_one(), "prefix", 1)
    others = simulate(traffic, "round-robin", 1), simulate(traffic, "least-load", 1)
    assert prefix.cached_share > single.cached_share - 0.05
    assert prefix.cached_share > 1.2 * max(other.cached_share for other in others)


@pytest.mark.parametrize("active", [33, 100])
def test_over_two_replicas_no_choice_finds_twice_what_round_robin_does(active: int) -> None:
    traffic = Traffic(active=active)
    prefix, other = simulate(traffic, "prefix", 1), simulate(traffic, "round-robin", 1)
    assert prefix.cached_share < foreseen_share(traffic, 1) < 2 * other.cached_share


def test_foresight_finds_all_that_fits() -> None:
    traffic = Traffic(conversations=20, share=10)
    single = simulate(traffic.on_one(), "prefix", 1)
    assert foreseen_share(traffic, 1) == single.cached_share


def test_the_same_seed_gives_the_same_outcome() -> None:
    traffic = Traffic(conversations=20)
    assert simulate(traffic, "prefix", 3) == simulate(traffic, "prefix", 3)
    assert simulate(traffic, "prefix", 3) != simulate(traffic, "prefix", 4)
