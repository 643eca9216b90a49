"""The bandwidth limit, by counting bytes on a clock that the test turns."""

import heapq

from hypothesis import given, settings
from hypothesis import strategies as st

from serve.mirror.rate import Bucket


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def run(rate: int, streams: int, until: float) -> tuple[list[tuple[float, int]], list[int]]:
    """Streams that never have to wait for their clients: every grant, and each one's bytes."""
    clock = Clock()
    bucket = Bucket(rate, clock)
    queue = [(clock.now, number) for number in range(streams)]
    grants, totals = [], [0] * streams
    while queue[0][0] < 100.0 + until:
        clock.now, number = heapq.heappop(queue)
        at = clock.now + bucket.reserve(bucket.piece_bytes)
        if at < 100.0 + until:
            grants.append((at, bucket.piece_bytes))
            totals[number] += bucket.piece_bytes
        heapq.heappush(queue, (max(at, clock.now + 1e-6), number))
    return grants, totals


@settings(max_examples=40, deadline=None)
@given(st.integers(50_000, 2_000_000), st.integers(1, 20))
def test_no_span_of_time_sees_more_than_the_rate(rate: int, streams: int) -> None:
    grants, _ = run(rate, streams, until=10.0)
    piece = Bucket(rate).piece_bytes
    for first, (begin, _) in enumerate(grants):
        within = 0
        for at, count in grants[first:]:
            within += count
            assert within <= rate * (at - begin + 0.25) + piece


@settings(max_examples=40, deadline=None)
@given(st.integers(50_000, 2_000_000), st.integers(1, 20))
def test_all_of_the_rate_is_used_and_shared_evenly(rate: int, streams: int) -> None:
    grants, totals = run(rate, streams, until=30.0)
    piece = Bucket(rate).piece_bytes
    assert sum(count for _, count in grants) >= rate * 30.0 - (streams + 1) * piece
    assert max(totals) - min(totals) <= 2 * piece


def test_an_idle_hour_saves_up_no_more_than_a_moment() -> None:
    clock = Clock()
    bucket = Bucket(1000, clock)
    clock.now += 3600
    assert bucket.reserve(250) == 0
    assert bucket.reserve(1000) == 1.0
