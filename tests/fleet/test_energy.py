"""A request's share of what the cards used."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.fleet.energy import EnergyLog, Look


def steady(watts: float, running: int, seconds: int = 20) -> EnergyLog:
    log = EnergyLog()
    for second in range(seconds + 1):
        log.note("m-0", Look(100.0 + second, 5000 + watts * second, running))
    return log


def test_alone_it_has_all_of_it_and_beside_others_its_part() -> None:
    assert steady(300, 1).share("m-0", 102.0, 4.0) == pytest.approx(1200)
    assert steady(300, 4).share("m-0", 102.5, 4.0) == pytest.approx(300)
    assert steady(300, 0).share("m-0", 102.0, 0.5) == pytest.approx(150), "seen between two looks"


def test_without_looks_nothing_is_said() -> None:
    log = steady(300, 1)
    assert log.share("m-1", 102.0, 1.0) is None
    assert log.share("m-0", 10.0, 1.0) is None
    assert log.share("m-0", 115.0, 100.0) is None, "most of it is not known yet"
    # Its end is not looked at yet, most of it is: the rest is taken to be like it.
    assert log.share("m-0", 118.0, 3.0) == pytest.approx(900)


def test_a_counter_of_another_life_is_not_subtracted() -> None:
    log = steady(300, 1)
    log.note("m-0", Look(121.0, 10.0, 1))
    assert log.share("m-0", 110.0, 5.0) is None
    log.note("m-0", Look(122.0, 60.0, 1))
    assert log.share("m-0", 121.0, 1.0) == pytest.approx(50)


@given(
    st.lists(st.tuples(st.floats(0, 15), st.floats(0.5, 5)), min_size=1, max_size=8),
    st.floats(50, 700),
)
def test_shares_never_add_up_to_more_than_was_used(
    requests: list[tuple[float, float]], watts: float
) -> None:
    def running(at: float) -> int:
        return sum(start <= at <= start + length for start, length in requests)

    log = EnergyLog()
    for tick in range(2001):  # a look each 10 ms
        at = tick / 100
        log.note("m-0", Look(at, watts * at, running(at)))
    shares = [log.share("m-0", start, length) for start, length in requests]
    busy_s = sum(running(tick / 100) > 0 for tick in range(2001)) / 100
    kept = [share for share in shares if share is not None]
    assert sum(kept) <= watts * busy_s * 1.05 + watts * 0.1
