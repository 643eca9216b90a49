"""The bandwidth limit: one bucket of bytes that all streams draw from, in turn."""

import threading
import time
from collections.abc import Callable

_BURST_S = 0.25
_SMALLEST_PIECE, _LARGEST_PIECE = 4 * 1024, 256 * 1024


class Bucket:
    """Grants bytes so that any span of t seconds sees at most `rate` x (t + a quarter) of them.

    Fair: every stream asks for one small piece at a time and asks again only when that was sent,
    so streams take turns in the order in which they ask. `clock` gives seconds, ever growing.
    """

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = max(rate, 1), clock
        self._free_at = clock() - _BURST_S
        self._lock = threading.Lock()
        tenth = self._rate // 10
        self.piece_bytes = min(max(tenth, _SMALLEST_PIECE), _LARGEST_PIECE)

    def reserve(self, count: int) -> float:
        """Take `count` bytes; how many seconds to wait before they may be sent."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - _BURST_S) + count / self._rate
            return max(self._free_at - now, 0.0)
