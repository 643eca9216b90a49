"""A segment with one damage, and what must still be read of it."""

import random
from collections.abc import Callable
from itertools import count

from serve.journal.frames import CLOSING, HEAD_BYTES, LARGEST_BYTES, frame, parse
from serve.journal.records import Record
from tests.journal.records import end, refusal, start

KINDS = ("cut", "flip", "zeros", "garbage", "torn")
_MAKERS: list[Callable[[int], Record]] = [start, end, refusal]
_LEAST_WINDOW = 2 * (LARGEST_BYTES + HEAD_BYTES)


def problem(seed: int, kind: str) -> str | None:
    """What was read and should not have been, or the other way round."""
    chance = random.Random(f"{kind} {seed}")
    numbers = count()
    records = [chance.choice(_MAKERS)(next(numbers)) for _ in range(chance.randint(1, 120))]
    frames = [frame(record) for record in records]
    content = bytearray(b"".join(frames) + chance.choice([CLOSING, b""]))
    begin, until = _hurt(content, kind, chance)
    content += bytes(chance.choice([0, 50, 5000, 2 * _LEAST_WINDOW]))
    places = [sum(map(len, frames[:number])) for number in range(len(frames) + 1)]
    spared = [
        record
        for record, a, b in zip(records, places, places[1:], strict=False)
        if b <= begin or a >= until
    ]
    is_final = chance.random() < 0.7
    found = read(bytes(content), is_final, chance)
    if not is_final:  # may stop at the damage, but not before it
        before = [record for record, b in zip(records, places[1:], strict=True) if b <= begin]
        return None if found[: len(before)] == before else f"{seed}: {kind}: lost while it lives"
    missing = [record for record in spared if record not in found]
    # A damage may have changed nothing, as zeros over zeros.
    foreign = [record for record in found if record not in records]
    if missing or foreign or len(found) != len(set(found)):
        return f"{seed}: {kind}: missing {missing}, foreign {foreign}"
    return None


def read(content: bytes, is_final: bool, chance: random.Random) -> list[Record]:
    """As the supervisor does it, in windows and batches of some size."""
    size, most = chance.randint(_LEAST_WINDOW, 2 * _LEAST_WINDOW), chance.randint(1, 200)
    found: list[Record] = []
    place = 0
    while True:
        window = content[place : place + size]
        is_last = place + len(window) >= len(content)
        piece = parse(window, place, most, is_final, is_last)
        found += piece.records
        if piece.is_closed or piece.end == place:
            return found
        place = piece.end


def _hurt(content: bytearray, kind: str, chance: random.Random) -> tuple[int, int]:
    begin = chance.randrange(len(content))
    until = min(begin + chance.randint(1, 600), len(content))
    if kind == "flip":
        until = begin + 1
        content[begin] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        until = len(content)
        del content[begin:]
    elif kind == "torn":  # the rest never came: memory that was not written to the disk
        until = len(content)
        content[begin:] = bytes(until - begin)
    elif kind == "zeros":
        content[begin:until] = bytes(until - begin)
    else:
        content[begin:until] = chance.randbytes(until - begin)
    return begin, until
