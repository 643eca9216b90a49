"""Memory that is free goes back."""

import ctypes
from itertools import pairwise

from serve.gateway.memory import Keeper, _resident_bytes

MIB = 2**20


def test_it_is_given_back_when_it_has_grown_and_not_before() -> None:
    sizes = [50, 52, 57.9, 60, 51, 58, 59.5, 51, 58.9, 40, 48, 41]
    trims: list[float] = []
    left = iter(sizes)

    def resident() -> int:
        seen.append(next(left))
        return int(seen[-1] * MIB)

    seen: list[float] = []
    keeper = Keeper(resident, lambda: trims.append(seen[-1]))
    while len(seen) < len(sizes):
        keeper.look()
    assert trims == [60, 59.5, 48]


def test_glibc_gives_back_what_bodies_leave() -> None:
    def grown() -> list[bytes]:
        # Small ones between, so that the end of the heap is never free; below the size from which
        # each has pages of its own.
        return [bytes([n % 256]) * size for n in range(400) for size in (100 * 1024, 600)]

    before = _resident_bytes()
    kept = grown()[1::2]
    looks = iter([before, _resident_bytes() + 64 * MIB, before])
    keeper = Keeper(lambda: next(looks), lambda: ctypes.CDLL(None).malloc_trim(0))
    keeper.look()
    assert _resident_bytes() - before < 8 * MIB
    assert len(kept) == 400 and all(len(one) == 600 for one, _ in pairwise(kept))
