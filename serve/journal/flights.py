"""How much of each answer was passed on: counts in mapped memory, which outlive the process.

When a gateway is killed, its successor learns from them what unfinished requests are charged.
"""

from collections.abc import Callable

from serve.journal.files import PLACES, Mapped


class Flights:
    """Places with a count each. Place 0 belongs to nobody: who gets it is not counted."""

    def __init__(self, mapped: Mapped | None) -> None:
        self._mapped = mapped
        memory = mapped.memory if mapped else bytearray(4)
        self._counts = memoryview(memory).cast("I")
        # (place, so many so far). No function of ours: it is called for every event of a stream.
        self.count: Callable[[int, int], None] = self._counts.__setitem__
        self._most = PLACES if mapped else 1
        self._unused = 1
        self._free: list[int] = []

    def take(self) -> int:
        """A place whose count is 0; 0 when there is none left."""
        if self._free:
            place = self._free.pop()
        elif self._unused < self._most:
            place = self._unused
            self._unused += 1
        else:
            return 0
        self._counts[place] = 0
        return place

    def free(self, place: int) -> None:
        """Somebody else may have it."""
        if place:
            self._free.append(place)

    def close(self) -> None:
        """Nothing can be counted any more; the counts stay on the disk until they were read."""
        self._counts.release()
        if self._mapped:
            self._mapped.close()
