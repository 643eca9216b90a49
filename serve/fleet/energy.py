"""How much energy a request took: its share of what its replica's cards used while it ran.

A card counts its own energy. Between two looks at it the energy is shared evenly among the requests
that ran; a batch's members cannot be told apart further. Without such a counter: nothing is said.
"""

from collections import defaultdict, deque
from dataclasses import dataclass
from itertools import pairwise

_KEPT = 1200  # looks at one replica: a request that was longer is told nothing
_LEAST_COVERED = 0.5  # of a request's time, for a figure to be one


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a replica's cards. `at`: unix seconds. `joules`: all of its cards' counters,
    added. `running`: requests that it worked on."""

    at: float
    joules: float
    running: int


class EnergyLog:
    """What was seen of each replica, the last twenty minutes or so. Pure."""

    def __init__(self) -> None:
        self._looks: defaultdict[str, deque[Look]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def note(self, replica: str, look: Look) -> None:
        """A counter that has gone back belongs to another life: what was before is forgotten."""
        looks = self._looks[replica]
        if looks and (look.joules < looks[-1].joules or look.at <= looks[-1].at):
            looks.clear()
        looks.append(look)

    def share(self, replica: str, at: float, duration_s: float) -> float | None:
        """Joules of a request that began `at`; None if too little of its time was looked at."""
        end = at + max(duration_s, 1e-3)
        joules = covered_s = 0.0
        for before, after in pairwise(self._looks.get(replica, ())):
            overlap_s = min(end, after.at) - max(at, before.at)
            if overlap_s > 0:
                running = max((before.running + after.running) / 2, 1.0)
                watts = (after.joules - before.joules) / (after.at - before.at)
                joules += watts * overlap_s / running
                covered_s += overlap_s
        if covered_s < _LEAST_COVERED * (end - at):
            return None
        return joules * (end - at) / covered_s
