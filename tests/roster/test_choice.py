from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.roster import Replica, ServedModel, choose


def model_of(count: int) -> ServedModel:
    replicas = tuple(Replica(f"r{number}", f"/run/{number}.sock") for number in range(count))
    return ServedModel("m", (), "ready", 4096, 0, replicas)


@pytest.mark.parametrize(
    ("running", "tie", "chosen"),
    [
        ({}, 0, "r0"),
        ({}, 1, "r1"),
        ({}, 3, "r0"),
        ({"r0": 1}, 0, "r1"),
        ({"r0": 1}, 1, "r2"),
        ({"r0": 2, "r1": 1, "r2": 2}, 7, "r1"),
        ({"r0": 1, "gone": 0}, 0, "r1"),
    ],
)
def test_the_idlest_answers_and_ties_rotate(running: dict[str, int], tie: int, chosen: str) -> None:
    assert choose(model_of(3), running, tie).id == chosen


@given(count=st.integers(1, 5), requests=st.integers(0, 60))
def test_running_requests_never_differ_by_more_than_one(count: int, requests: int) -> None:
    model, running = model_of(count), Counter[str]()
    for tie in range(requests):
        running[choose(model, running, tie).id] += 1
    counts = [running[replica.id] for replica in model.replicas]
    assert max(counts) - min(counts) <= 1
