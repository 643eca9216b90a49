"""How fast requests come out of a model again, measured, so that a Retry-After is honest."""

LONGEST_S = 60.0
SHORTEST_S = 0.05
UNKNOWN_S = 1.0

_SHARE = 0.1  # of a new measurement in the mean


class Pace:
    """Of one model, as this process sees it."""

    __slots__ = ("_gap_s", "_last_s", "usual_s")

    def __init__(self) -> None:
        self.usual_s = UNKNOWN_S  # that a request is in
        self._gap_s: float | None = None
        self._last_s: float | None = None

    def note(self, lasted_s: float, now_s: float | None = None) -> None:
        """A request has ended. `now_s`: when, if others wait: only then the time since the one
        before tells how fast the model can be."""
        self.usual_s += _SHARE * (lasted_s - self.usual_s)
        if now_s is not None and self._last_s is not None:
            gap_s = now_s - self._last_s
            self._gap_s = (
                gap_s if self._gap_s is None else self._gap_s + _SHARE * (gap_s - self._gap_s)
            )
        self._last_s = now_s

    def drain_s(self, waiting: int, slots: int) -> float:
        """Until so many who wait, and one more, have been let in."""
        gap_s = self.usual_s / max(1, slots) if self._gap_s is None else self._gap_s
        return min(LONGEST_S, max(SHORTEST_S, (waiting + 1) * gap_s))
