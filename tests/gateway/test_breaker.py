"""Replicas that are left alone, and requests that are not tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import Poisonous
from serve.gateway.breaker import Breaker, Poison


def broken(times: int, at_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(times):
        breaker.failed("r", at_s)
    return breaker


def test_three_failures_in_a_row_open_it_and_a_success_between_them_does_not_count() -> None:
    breaker = broken(2)
    assert not breaker.blocked(0)
    breaker.succeeded("r")
    breaker.failed("r", 0)
    breaker.failed("r", 0)
    assert not breaker.blocked(0)
    breaker.failed("r", 0)
    assert breaker.blocked(0) == {"r"}


def test_after_its_rest_one_probe_goes_and_its_end_decides() -> None:
    breaker = broken(3)
    assert breaker.blocked(1.9) == {"r"}
    assert not breaker.blocked(2.0)
    breaker.picked("r", 2.0)
    assert breaker.blocked(2.0) == {"r"}, "only one probe"
    breaker.failed("r", 2.5)
    assert breaker.blocked(6.4) == {"r"}, "it rests twice as long"
    assert not breaker.blocked(6.5)
    breaker.picked("r", 6.5)
    breaker.succeeded("r")
    assert not breaker.blocked(6.5)


def test_a_probe_that_never_tells_does_not_block_for_ever() -> None:
    breaker = broken(3)
    breaker.picked("r", 2.0)
    assert breaker.blocked(31.9) == {"r"}
    assert not breaker.blocked(32.0)


def test_the_rest_grows_to_half_a_minute_and_no_further() -> None:
    breaker, now_s = broken(3), 0.0
    rests = []
    for _ in range(8):
        start_s = now_s
        while breaker.blocked(now_s):
            now_s += 0.5
        rests.append(now_s - start_s)
        breaker.picked("r", now_s)
        breaker.failed("r", now_s)
    assert rests == [2, 4, 8, 16, 30, 30, 30, 30]


def test_a_replica_that_is_gone_is_forgotten() -> None:
    breaker = broken(3)
    breaker.forget(frozenset({"other"}))
    assert not breaker.blocked(0)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_what_was_there_at_two_deaths_is_refused_for_an_hour() -> None:
    clock = Clock()
    poison = Poison(clock)
    for _ in range(2):
        poison.note_death(poison.check("m", b"{bad}"))
    with pytest.raises(Poisonous) as refused:
        poison.check("m", b"{bad}")
    assert (refused.value.model, refused.value.deaths) == ("m", 2)
    poison.check("m", b"{good}")
    poison.check("another", b"{bad}")
    clock.now_s = 3601
    poison.check("m", b"{bad}")


def test_a_bystander_that_is_answered_later_is_none_any_more() -> None:
    poison = Poison(Clock())
    mark = poison.check("m", b"{ping}")
    poison.note_death(mark)
    poison.note_answer(mark)
    poison.note_death(mark)
    assert poison.check("m", b"{ping}") == mark


def test_an_old_death_does_not_count_with_a_new_one() -> None:
    clock = Clock()
    poison = Poison(clock)
    mark = poison.check("m", b"{}")
    poison.note_death(mark)
    clock.now_s = 3601
    poison.note_death(mark)
    poison.check("m", b"{}")


@given(st.integers(0, 60_000), st.integers(0, 60_000))
def test_long_bodies_that_differ_at_an_end_or_in_length_are_told_apart(a: int, b: int) -> None:
    poison = Poison()
    one, other = b"x" * a + b"1", b"x" * b + b"2"
    assert poison.check("m", one) != poison.check("m", other)
    assert (poison.check("m", b"y" * a) == poison.check("m", b"y" * b)) == (a == b)


def test_suspects_are_bounded() -> None:
    poison = Poison(Clock())
    for number in range(10_050):
        poison.note_death(number)
    assert len(poison._suspects) == 10_000
