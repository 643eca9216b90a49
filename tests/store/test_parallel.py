import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.store.parallel import Stop, Stopped, run_all


@given(st.lists(st.integers(), max_size=20), st.integers(1, 8))
def test_results_are_in_order(items: list[int], threads: int) -> None:
    assert run_all(lambda n: n * 2, items, threads, Stop()) == [n * 2 for n in items]


def test_no_more_than_so_many_at_once() -> None:
    both = threading.Barrier(2)  # passes when two are at work
    at_work = threading.Semaphore(2)

    def work(n: int) -> int:
        assert at_work.acquire(blocking=False)
        both.wait(10)
        at_work.release()
        return n

    assert run_all(work, range(8), 2, Stop()) == list(range(8))


def test_the_first_error_stops_the_others() -> None:
    stop, others = Stop(), threading.Barrier(3)
    seen: list[str] = []

    def work(n: int) -> None:
        others.wait(10)
        if n == 0:
            raise ValueError("broken")
        try:
            stop.wait(60)
        except Stopped:
            seen.append("stopped")
            raise

    began = time.monotonic()
    with pytest.raises(ValueError, match="broken"):
        run_all(work, range(20), 3, stop)
    assert time.monotonic() - began < 10
    assert seen == ["stopped"] * 2


def test_nobody_waits_for_a_thread_that_hangs() -> None:
    hanging, end = threading.Event(), threading.Event()

    def work(n: int) -> None:
        if n == 0:
            hanging.wait(10)
            raise ValueError("broken")
        hanging.set()
        end.wait(60)

    began = time.monotonic()
    with pytest.raises(ValueError, match="broken"):
        run_all(work, range(2), 2, Stop())
    assert time.monotonic() - began < 10
    end.set()


def test_a_stop_calls_those_who_cannot_look() -> None:
    stop, called = Stop(), threading.Event()
    with stop.calling(called.set):
        assert not called.is_set()
        stop.give()
        assert called.is_set()
    called.clear()
    stop.give()
    assert not called.is_set(), "it is over for this one"
    with pytest.raises(Stopped), stop.calling(called.set):
        raise AssertionError("too late to begin")
