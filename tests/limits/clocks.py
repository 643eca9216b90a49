"""A clock that is set by hand."""

from serve.limits.clock import Clock

NOON = 1_700_000_000 // 86400 * 86400 + 43200.0


class HandClock(Clock):
    """Both clocks go on together; the wall clock alone may be set."""

    __slots__ = ("now_ns", "wall_s")

    def __init__(self) -> None:
        self.now_ns, self.wall_s = 10**12, NOON

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time(self) -> float:
        return self.wall_s

    def go(self, seconds: float) -> None:
        self.now_ns += round(seconds * 10**9)
        self.wall_s += seconds
