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

    __slots__ = ("_young_bytes", "old", "room_bytes", "share", "young")

    def __init__(self, room_bytes: int = 0) -> None:
        self.young: dict[int, int] = {}
        self.old: dict[int, int] = {}
        self._young_bytes = 0.0
        self.room_bytes = room_bytes
        self.share = 1.0

    def __len__(self) -> int:
        """Entries, of which a block has at most one in each generation."""
        return len(self.young) + len(self.old)

    def depth(self, chain: Sequence[int], known: int = 0) -> int:
        """How many blocks of the chain's beginning are known; the first `known` of them are."""
        young, old = self.young, self.old
        low, high = known, len(chain)
        while low < high:
            middle = (low + high) // 2
            block = chain[middle]
            if block in young or block in old:
                low = middle + 1
            else:
                high = middle
        return low

    def mark(self, block: int) -> int:
        """What `use` was told when this block, which is known, was used last."""
        mark = self.young.get(block)
        return self.old[block] if mark is None else mark

    def use(self, chain: Sequence[int], n_bytes: int, inner: int, last: int) -> None:
        """The replica works on this chain, of so many bytes. `last` is kept as the mark of its last
        block, `inner` of the others."""
        young = self.young
        before = len(young)
        most_bytes = self.room_bytes * self.share * _CACHES
        if self._young_bytes >= most_bytes or before > _MOST_BLOCKS:
            self.old = young
            self.young = young = {}
            self._young_bytes = 0.0
            before = 0
        young |= dict.fromkeys(chain, inner)
        young[chain[-1]] = last
        fresh = len(young) - before
        if fresh:
            self._young_bytes += fresh * n_bytes / len(chain)

    def miss(self) -> None:
        """A block that is known was not in the cache: what was used before it is gone as well, and
        the cache holds less than we thought, or others fill it too."""
        self.old = {}
        self.share = max(_LEAST_SHARE, self.share * _SMALLER)

    def hit(self) -> None:
        """What is known was there."""
        if self.share < 1:
            self.share = min(1.0, self.share * _LARGER)
