"""Which replicas are left alone for a while, and which requests are not tried again."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from serve.errors import Poisonous

_FAILURES = 3  # in a row, before a replica is left alone
_FIRST_REST_S, _LONGEST_REST_S = 2.0, 30.0
_PROBE_S = 30.0  # a probe that has told nothing for so long has been forgotten: another may go

_DEATHS = 2  # that a request was there at, before it is not tried again
_REMEMBER_S = 3600.0
_MOST_SUSPECTS = 10_000
_ENDS_BYTES = 8192  # of a long body's beginning and end, that it is known by


@dataclass(slots=True)
class _Health:
    failures: int = 0
    rest_s: float = _FIRST_REST_S
    until_s: float = 0.0  # when the rest, or the patience with a probe, is over
    is_open: bool = False


class Breaker:
    """Pure state, one per gateway process; times are readings of a monotonic clock in seconds."""

    def __init__(self) -> None:
        self._sick: dict[str, _Health] = {}

    def blocked(self, now_s: float) -> frozenset[str]:
        """Ids of the replicas that are left alone now."""
        if not self._sick:
            return frozenset()
        return frozenset(
            id for id, health in self._sick.items() if health.is_open and now_s < health.until_s
        )

    def picked(self, replica: str, now_s: float) -> None:
        """It was chosen: if it has just rested, this request is its probe, and the only one until
        it has told how it went."""
        health = self._sick.get(replica)
        if health is not None and health.is_open:
            health.until_s = now_s + _PROBE_S

    def succeeded(self, replica: str) -> None:
        """It has answered (with any status: it lives)."""
        self._sick.pop(replica, None)

    def failed(self, replica: str, now_s: float) -> None:
        """It could not be reached, or broke off."""
        health = self._sick.setdefault(replica, _Health())
        health.failures += 1
        if health.is_open:
            health.rest_s = min(2 * health.rest_s, _LONGEST_REST_S)
        if health.failures >= _FAILURES:
            health.is_open = True
            health.until_s = now_s + health.rest_s

    def forget(self, known: frozenset[str]) -> None:
        """Only the replicas `known` (ids) are there now; a new engine starts with a clean slate."""
        for id in self._sick.keys() - known:
            del self._sick[id]


class Poison:
    """Requests that were there when engines died, by a keyed hash of their bytes.

    Those beside the culprit are suspects too. A suspect that is answered later is none any more, so
    two crashes for another reason do not condemn a harmless request that somebody sends all day.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._suspects: OrderedDict[int, tuple[int, float]] = OrderedDict()  # mark → deaths, when

    def check(self, model: str, body: bytes) -> int:
        """A mark of this body, for the other calls; Poisonous if it was there at two deaths."""
        # Python's hash of bytes has a secret of this process in it, so nobody can aim at another's.
        if len(body) > 2 * _ENDS_BYTES:
            mark = hash((model, len(body), body[:_ENDS_BYTES], body[-_ENDS_BYTES:]))
        else:
            mark = hash((model, body))
        if self._suspects:
            deaths, died_s = self._suspects.get(mark, (0, 0.0))
            if deaths >= _DEATHS and self._now() - died_s < _REMEMBER_S:
                raise Poisonous(model, deaths)
        return mark

    def note_death(self, mark: int) -> None:
        """The engine died that worked on it."""
        now_s = self._now()
        deaths, died_s = self._suspects.pop(mark, (0, now_s))
        if now_s - died_s >= _REMEMBER_S:
            deaths = 0
        self._suspects[mark] = (deaths + 1, now_s)
        if len(self._suspects) > _MOST_SUSPECTS:
            self._suspects.popitem(last=False)

    def note_answer(self, mark: int) -> None:
        """It was answered, and the engine lives."""
        if self._suspects:
            self._suspects.pop(mark, None)
