"""The choice of a replica, written down plainly: each rule as it is told, each list walked through.

What `serve.roster` does in fewer steps must be what this does.
"""

from collections import Counter
from dataclasses import dataclass, field

from serve.roster import Replica, ServedModel, choice, index, places
from serve.roster.hashing import bytes_in, chain_of, end_of, goes_on


@dataclass(eq=False)
class PlainPlace:
    """One life of a replica."""

    replica: Replica
    work: int
    room: int = 0
    picks: int = 0
    share: float = 1.0
    young: dict[int, int] = field(default_factory=dict)
    old: dict[int, int] = field(default_factory=dict)
    young_bytes: float = 0.0
    running: list["PlainLease"] = field(default_factory=list)

    @property
    def known(self) -> dict[int, int]:
        return self.old | self.young

    def measure(self, bytes_per_token: float) -> None:
        self.room = int((self.replica.kv_tokens or places._USUAL_KV_TOKENS) * bytes_per_token)

    def depth(self, chain: list[int]) -> int:
        known = self.known
        return next((n for n, block in enumerate(chain) if block not in known), len(chain))

    def is_read(self, chain: list[int], depth: int) -> bool:
        marks = [self.known[block] for block in chain[:depth][-2:]]
        while marks and marks[-1] & 1:
            if len(marks) < 2 or marks[-2] & 1:
                return False
            marks.pop()
        return bool(marks) and all(lease.mark != marks[-1] for lease in self.running)

    def use(self, chain: list[int], size: int, mark: int, end: int) -> None:
        is_full = self.young_bytes >= self.room * self.share * index._CACHES
        if is_full or len(self.young) > index._MOST_BLOCKS:
            self.old, self.young, self.young_bytes = self.young, {}, 0.0
        before = len(self.young)
        for block in chain:
            self.young[block] = mark
        self.young[chain[-1]] = end
        self.young_bytes += (len(self.young) - before) * size / len(chain)


@dataclass(eq=False)
class PlainLease:
    """A request at a place; of what was predicted of its prompt."""

    chooser: "PlainChooser"
    place: PlainPlace
    rate: list[float]  # of the roster that was there when it began
    size: int = 0
    known: int = 0
    is_sure: bool = False
    mark: int = 0

    def end(self, prompt_tokens: int | None, cached_tokens: int | None) -> None:
        chooser, place = self.chooser, self.place
        chooser.running[place.replica.id] -= 1
        if self.size:
            place.running.remove(self)
        if not self.size or not prompt_tokens:
            return
        sample = min(max(self.size / prompt_tokens, places._LEAST_BYTES), places._MOST_BYTES)
        self.rate[0] += places._LEARNING * (sample - self.rate[0])
        place.measure(self.rate[0])
        if cached_tokens is None or not self.is_sure:
            return
        predicted = self.known * prompt_tokens // self.size
        if cached_tokens * 2 >= predicted:
            place.share = min(1.0, place.share * index._LARGER)
        elif predicted - cached_tokens > choice._GRAIN_TOKENS:
            place.old = {}
            place.share = max(index._LEAST_SHARE, place.share * index._SMALLER)


class PlainChooser:
    """Of one model."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.places: list[PlainPlace] = []
        self.rate, self.turn = [places._BYTES_PER_TOKEN], 0  # bytes per token

    def update(self, model: ServedModel) -> None:
        usual = sum(place.work for place in self.places) // max(len(self.places), 1)
        lives = {(place.replica.id, place.replica.epoch): place for place in self.places}
        self.places, self.rate = [], list(self.rate)
        for replica in model.replicas:
            place = lives.get((replica.id, replica.epoch)) or PlainPlace(replica, usual)
            place.replica = replica
            place.measure(self.rate[0])
            self.places.append(place)

    def pick(self, model: ServedModel, prompt: bytes, avoid: frozenset[str]) -> PlainLease | None:
        there = [place for place in self.places if place.replica.id not in avoid]
        if not there:
            return None
        if len(self.places) == 1:
            lease = PlainLease(self, there[0], self.rate)
        elif model.routing == "prefix" and (chain := chain_of(prompt, model.name, b"")):
            lease = self._by_prefix(there, chain, prompt)
        elif model.routing == "round-robin":
            self.turn += 1
            lease = PlainLease(self, there[self.turn % len(there)], self.rate)
        else:
            lease = PlainLease(self, self._idlest(there), self.rate)
        self.running[lease.place.replica.id] += 1
        return lease

    def _by_prefix(self, there: list[PlainPlace], chain: list[int], prompt: bytes) -> PlainLease:
        place = self._holder(there, chain, prompt) or self._idlest(there)
        depth, size = place.depth(chain), len(prompt)
        is_sure = place.is_read(chain, depth)
        place.picks += 1
        mark = 2 + place.picks // places._PICKS_A_MARK * 2
        end = end_of(prompt, len(chain)) if len(chain) >= choice._LEAST_ENDING else mark
        place.use(chain, size, mark, end)
        place.work += size - bytes_in(depth)
        if place.work > choice._CACHES_REMEMBERED * place.room:
            for each in self.places:
                each.work //= 2
        lease = PlainLease(self, place, self.rate, size, bytes_in(depth), is_sure, mark)
        place.running.append(lease)
        return lease

    def _holder(
        self, there: list[PlainPlace], chain: list[int], prompt: bytes
    ) -> PlainPlace | None:
        counts = [self.running[place.replica.id] for place in there]
        most = (sum(counts) + 1) * choice._SKEW / len(there) + choice._SLACK_REQUESTS
        may = [place for place, count in zip(there, counts, strict=True) if count + 1 <= most]
        depth = max((place.depth(chain) for place in may), default=0)
        if not depth:
            return None
        equals = [place for place in may if place.depth(chain) == depth]
        ends = [place.known[chain[depth - 1]] for place in equals]
        going = [
            place
            for place, end in zip(equals, ends, strict=True)
            if end & 1 and goes_on(prompt, depth, end)
        ]
        if going:
            return min(going, key=self._load)
        best = min(equals, key=self._load)
        work = sum(place.work for place in there) / len(there) * choice._TEXT_SKEW
        is_fair = best.work <= work + best.room // choice._TEXT_SLACK
        return best if depth * 2 >= len(chain) and is_fair else None

    def _load(self, place: PlainPlace) -> tuple[int, int]:
        return self.running[place.replica.id], place.work

    def _idlest(self, there: list[PlainPlace]) -> PlainPlace:
        self.turn += 1
        start = self.turn % len(there)
        return min([*there[start:], *there[:start]], key=self._load)
