"""What the best of all choices could find in the caches: an upper bound for every strategy."""

from collections import defaultdict
from math import inf

from tests.roster.simulation import BLOCK_BYTES, BYTES_PER_TOKEN, Engine, Traffic, simulate

_OWNER_BITS = 20  # of a block's name: above them is its conversation, 0 for the system prompt


def foreseen_share(traffic: Traffic, seed: int) -> float:
    """The cached share of one cache as large as those of all replicas, which knows what comes and
    drops what is needed last (Belady's rule, the best there is). Whatever replicas hold together,
    it can hold, so no choice among them finds more."""
    past = _Past(traffic.kv_tokens)
    simulate(traffic.on_one(), "least-load", seed, lambda _: past)
    return simulate(
        traffic.on_one(), "least-load", seed, lambda kv_tokens: _Foresight(kv_tokens, past)
    ).cached_share


class _Past(Engine):
    """Writes down who asks when. A conversation is seen twice a turn: as it asks, and with its
    answer."""

    def __init__(self, kv_tokens: int) -> None:
        super().__init__(kv_tokens)
        self.owners: list[int] = []

    def use(self, names: list[int]) -> int:
        self.owners.append(names[-1] >> _OWNER_BITS)
        return 0

    def next_questions(self) -> list[float]:
        """For each use, when its conversation asks again; never, where it only has its answer to
        come: that brings all of its blocks anew, so that until then none is worth its room."""
        seen: defaultdict[int, int] = defaultdict(int)
        is_question = [not self._count(seen, owner) % 2 for owner in self.owners]
        comes: dict[int, float] = {}
        found = [inf] * len(self.owners)
        for place in reversed(range(len(self.owners))):
            owner = self.owners[place]
            if is_question[place]:
                comes[owner] = place
            else:
                found[place] = comes.get(owner, inf)
        return found

    @staticmethod
    def _count(seen: defaultdict[int, int], owner: int) -> int:
        seen[owner] += 1
        return seen[owner] - 1


class _Foresight(Engine):
    """Holds so many of the first blocks of each conversation, by when it asks again."""

    def __init__(self, kv_tokens: int, past: _Past) -> None:
        super().__init__(kv_tokens)
        self._room = kv_tokens * BYTES_PER_TOKEN // BLOCK_BYTES
        self._coming = iter(past.next_questions())
        self._held: defaultdict[int, int] = defaultdict(int)
        self._asks: dict[int, float] = {0: -1}  # all begin with the system prompt

    def use(self, names: list[int]) -> int:
        owner = names[-1] >> _OWNER_BITS
        own = sum(name >> _OWNER_BITS > 0 for name in names)
        common, held = len(names) - own, self._held
        cached = min(held[0], common)
        if cached == common:
            cached += min(held[owner], own)
        held[0], held[owner], self._asks[owner] = common, own, next(self._coming)
        over = sum(held.values()) - self._room
        for last in sorted(held, key=self._asks.__getitem__, reverse=True):
            if over <= 0:
                break
            dropped = min(over, held[last])
            held[last] -= dropped
            over -= dropped
        return cached
