"""Memory that nobody uses goes back to the system: large bodies leave holes in the heap of C, which
would keep the room of the busiest second for ever (glibc; elsewhere nothing is done).
"""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

_EVERY_S = 5.0
_WORTH_BYTES = 8 * 2**20  # grown by less, it is not worth the millisecond that this takes
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")


class Keeper:
    """`resident`: bytes that this process holds. `trim`: give back what is free."""

    def __init__(self, resident: Callable[[], int], trim: Callable[[], object]) -> None:
        self._resident, self._trim = resident, trim
        self._usual = resident()

    def look(self) -> None:
        """Give back, if it has grown."""
        size = self._resident()
        if size - self._usual >= _WORTH_BYTES:
            self._trim()
            self._usual = self._resident()
        else:
            self._usual = min(self._usual, size)


async def keep_small() -> None:
    """Until cancelled."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None or not _STATM.exists():
        return
    keeper = Keeper(_resident_bytes, lambda: trim(0))
    while True:
        await asyncio.sleep(_EVERY_S)
        keeper.look()


def _resident_bytes() -> int:
    return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
