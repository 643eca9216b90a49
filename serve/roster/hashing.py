"""A prompt as a chain of hashes: each names a block and all that is before it."""

import secrets
from functools import cache
from struct import Struct

from xxhash import xxh3_64_intdigest

BLOCK_BYTES = 512
# Long prompts cost less per byte: who shares this much shares much more.
FINE_BLOCKS = 128
LONG_BLOCK_BYTES = 4096
_FINE_BYTES = FINE_BLOCKS * BLOCK_BYTES
# CPython's ints have 30 bits in a digit, and a third digit takes 16 bytes more of memory.
_MASK = (1 << 60) - 1

# The end of a prompt as an odd number of one digit: a hash, a length, a one. Two ends are taken for
# each other once in 131,072 times, which costs nothing but a choice that is a little worse.
_LENGTH_BITS = 12
_END_MASK = (1 << 17) - 1

# Of this process alone: nobody can make prompts that collide, or learn who asked the same.
_SECRET = secrets.randbits(60)


def chain_of(prompt: bytes, model: str, salt: bytes) -> list[int]:
    """The hash of every whole block of `prompt`, each with all before it; equal ends of two chains
    mean equal beginnings of two prompts of the same model and salt.

    The first 64 KiB have blocks of 512 bytes, the rest of 4 KiB. The last byte is left out: it
    closes a list of messages or a string, and the next turn has more in its place.
    """
    size = len(prompt) - 1
    if size < BLOCK_BYTES:
        return []
    head = _seed(model)
    if salt:
        head = xxh3_64_intdigest(salt, head) & _MASK
    cut = _cut(size // BLOCK_BYTES if size < _FINE_BYTES else FINE_BLOCKS)
    chain = [head := xxh3_64_intdigest(block, head) & _MASK for block in cut(prompt)]
    if size > _FINE_BYTES:
        for start in range(_FINE_BYTES, size - LONG_BLOCK_BYTES + 1, LONG_BLOCK_BYTES):
            block = prompt[start : start + LONG_BLOCK_BYTES]
            chain.append(head := xxh3_64_intdigest(block, head) & _MASK)
    return chain


def bytes_in(blocks: int) -> int:
    """How much of a prompt the first `blocks` of its chain stand for."""
    if blocks <= FINE_BLOCKS:
        return blocks * BLOCK_BYTES
    return _FINE_BYTES + (blocks - FINE_BLOCKS) * LONG_BLOCK_BYTES


def end_of(prompt: bytes, blocks: int) -> int:
    """An odd number for what comes after the `blocks` of its chain, the last byte left out."""
    tail = prompt[bytes_in(blocks) : -1]
    return (xxh3_64_intdigest(tail, _SECRET) & _END_MASK) << (_LENGTH_BITS + 1) | len(tail) << 1 | 1


def goes_on(prompt: bytes, blocks: int, end: int) -> bool:
    """Does a prompt that shares so many blocks with an earlier one go on where that ended?"""
    start, size = bytes_in(blocks), end >> 1 & ((1 << _LENGTH_BITS) - 1)
    if start + size >= len(prompt):
        return False
    tail = prompt[start : start + size]
    return xxh3_64_intdigest(tail, _SECRET) & _END_MASK == end >> (_LENGTH_BITS + 1)


@cache  # models are few
def _seed(model: str) -> int:
    return int(xxh3_64_intdigest(model.encode(), _SECRET)) & _MASK


@cache  # at most FINE_BLOCKS of them
def _cut(blocks: int):  # type: ignore[no-untyped-def]
    """Splits the beginning of a prompt into so many blocks at once."""
    return Struct(f"{BLOCK_BYTES}s" * blocks).unpack_from
