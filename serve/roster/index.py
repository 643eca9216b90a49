"""What one replica is believed to hold in its prefix cache."""

from collections.abc import Sequence

# 32 MiB of text, more than most KV caches hold; both generations together then take 11 MB.
_MOST_BLOCKS = 65_536
# A generation is worth so many caches. To know less than there is costs much: by simulation half of
# the right size costs 7 to 25 points of cached share, twice as much costs none.
_CACHES = 1.5
_LEAST_SHARE = 1 / 8
_SMALLER, _LARGER = 0.9, 1.01


class PrefixIndex:
    """Blocks of prompts (hashes as `chain_of` gives them) in the order of their last use, roughly.

    Two generations stand for a list by last use, at a third of its memory: what is used goes into
    the young one; once that holds more text than the cache (`room_bytes`), it becomes the old one,
    whose blocks are forgotten. To know more than there is does no harm: who is sent to where its
    blocks were, instead of anywhere else, is no worse off.

    `room_bytes` may be set anew. A chain is used as a whole, so a block is never forgotten before
    those that follow it.
    """

    __slots__ = ("_old", "_share", "_young", "_young_bytes", "room_bytes")

    def __init__(self, room_bytes: int = 0) -> None:
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._young_bytes = 0.0
        self.room_bytes = room_bytes
        self._share = 1.0

    def __len__(self) -> int:
        """Entries, of which a block has at most one in each generation."""
        return len(self._young) + len(self._old)

    def depth(self, chain: Sequence[int], least: int = 0) -> int:
        """How many blocks of the chain's beginning are known; -1 if fewer than `least`."""
        young, old = self._young, self._old
        if least and (block := chain[least - 1]) not in young and block not in old:
            return -1
        low, high = least, len(chain)
        middle = low + 1  # most caches have nothing beyond what the others have, too
        while low < high:
            block = chain[middle - 1]
            if block in young or block in old:
                low = middle
            else:
                high = middle - 1
            middle = (low + high + 1) // 2
        return low

    def mark(self, block: int) -> int:
        """What `use` was told when this block, which is known, was used last."""
        mark = self._young.get(block)
        return self._old[block] if mark is None else mark

    def use(self, chain: Sequence[int], n_bytes: int, inner: int, last: int) -> None:
        """The replica works on this chain, of so many bytes. `last` is kept as the mark of its last
        block, `inner` of the others."""
        most_bytes = self.room_bytes * self._share * _CACHES
        if self._young_bytes >= most_bytes or len(self._young) > _MOST_BLOCKS:
            self._old, self._young, self._young_bytes = self._young, {}, 0.0
        young = self._young
        before = len(young)
        for block in chain:
            young[block] = inner
        young[chain[-1]] = last
        if len(young) != before:
            self._young_bytes += (len(young) - before) * n_bytes / len(chain)

    def miss(self) -> None:
        """A block that is known was not in the cache: what was used before it is gone as well, and
        the cache holds less than we thought, or others fill it too."""
        self._old = {}
        self._share = max(_LEAST_SHARE, self._share * _SMALLER)

    def hit(self) -> None:
        """What is known was there."""
        if self._share < 1:
            self._share = min(1.0, self._share * _LARGER)
