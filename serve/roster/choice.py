"""Which replica answers a request, and who works on how much."""

from collections import defaultdict
from collections.abc import Sequence

from serve.roster.hashing import bytes_in, chain_of, end_of, goes_on
from serve.roster.places import Group, Place
from serve.roster.roster import Replica, Roster, ServedModel

# Nobody gets a request for what it may have cached, if it would then have more than this times
# the mean, and a few.
_SKEW = 1.25
_SLACK_REQUESTS = 2
# The same for new text, which is what fills caches: a part of the cache more than the mean. By
# simulation (tests/roster/simulation.py).
_TEXT_SKEW = 1.1
_TEXT_SLACK = 64
_LEAST_ENDING = 3  # blocks
# An engine counts whole blocks of up to 128 tokens.
_GRAIN_TOKENS = 128


class Lease:
    """One request holding one replica, until `end`."""

    __slots__ = ("_chooser", "_group", "_is_over", "_is_sure", "_known", "_mark", "_place", "_size")

    def __init__(self, chooser: "Chooser", group: Group, place: Place) -> None:
        self._chooser = chooser
        self._group = group
        self._place = place
        self._is_over = False
        self._size = 0  # bytes of the prompt; 0: nothing was predicted
        self._known = 0  # bytes of it that are believed to be cached
        self._is_sure = False
        self._mark = 0
        chooser.running[place.id] += 1

    @property
    def replica(self) -> Replica:
        return self._place.replica

    def end(self, prompt_tokens: int | None = None, cached_tokens: int | None = None) -> None:
        """Give the replica back; a second call does nothing. What the engine said of the prompt
        (None: it said nothing) corrects what we believe of its prefix cache."""
        if self._is_over:
            return
        self._is_over = True
        self._chooser.running[self._place.id] -= 1
        if not self._size:
            return
        self._place.close_mark(self._mark)
        if prompt_tokens:
            self._group.learn(self._place, self._size, prompt_tokens)
            if cached_tokens is not None and self._is_sure:
                self._compare(self._known * prompt_tokens // self._size, cached_tokens)

    def predict(self, size: int, known: int, is_sure: bool, mark: int) -> None:
        """`known` of the prompt's `size` bytes should be cached; `is_sure`: they have been."""
        self._size, self._known, self._is_sure, self._mark = size, known, is_sure, mark

    def _compare(self, predicted: int, cached: int) -> None:
        if cached * 2 >= predicted:
            self._place.index.hit()
        elif predicted - cached > _GRAIN_TOKENS:
            self._place.index.miss()


class Chooser:
    """One per gateway process. `running`: replica id → requests of this process that it has."""

    def __init__(self) -> None:
        self.running: defaultdict[str, int] = defaultdict(int)
        self._groups: dict[str, Group] = {}

    @property
    def blocks(self) -> int:
        """Entries of the prefix indexes, all together."""
        places = [place for group in self._groups.values() for place in group.places]
        return sum(len(place.index) for place in places)

    def update(self, roster: Roster) -> None:
        """Replicas come and go; what is known of those that stay is kept."""
        self._groups = {
            model.name: Group(model, self._groups.get(model.name)) for model in roster.models
        }
        there = {replica.id for model in roster.models for replica in model.replicas}
        for gone in [id for id, count in self.running.items() if not count and id not in there]:
            del self.running[gone]

    def pick(
        self, model: ServedModel, prompt: bytes, salt: bytes, avoid: frozenset[str] = frozenset()
    ) -> Lease | None:
        """A lease on the best replica; None if all of them are in `avoid` (ids), or there is none.

        `prompt`: the bytes of the messages as they came, from the first bracket or quote to the
        last; prompts are compared from their beginning. `salt`: what separates prefix caches, and
        whatever else stands before the messages in what the engine reads (adapter, tools).
        """
        group = self._groups.get(model.name)
        if group is None or group.model is not model:
            group = self._groups[model.name] = Group(model, group)
        places = group.places
        if avoid:
            places = [place for place in places if place.id not in avoid]
        if not places:
            return None
        if len(places) == 1 and len(group.places) == 1:
            return Lease(self, group, places[0])
        if model.routing == "prefix" and (chain := chain_of(prompt, model.name, salt)):
            return self._by_prefix(group, places, chain, prompt)
        if model.routing == "round-robin":
            group.turn += 1
            return Lease(self, group, places[group.turn % len(places)])
        return Lease(self, group, self._idlest(group, places))

    def _by_prefix(
        self, group: Group, places: Sequence[Place], chain: list[int], prompt: bytes
    ) -> Lease:
        place, depth = self._holder(places, chain, prompt)
        if place is None:
            place = self._idlest(group, places)
            depth = place.index.depth(chain)
        lease, size, known_bytes = Lease(self, group, place), len(prompt), bytes_in(depth)
        lease.predict(size, known_bytes, place.is_read(chain, depth), mark := place.open_mark())
        # An end is a number of its own, which very short chains have no room for.
        end = end_of(prompt, len(chain)) if len(chain) >= _LEAST_ENDING else mark
        place.index.use(chain, size, mark, end)
        group.count(place, size - known_bytes)
        return lease

    def _holder(
        self, places: Sequence[Place], chain: list[int], prompt: bytes
    ) -> tuple[Place | None, int]:
        """Who shall get a request for what it has cached of it, and how many blocks that is; None
        if it is worth nobody's while.

        Of those that may take more, the one that holds the longest beginning. A conversation stays
        where it is, so of equals the one where the prompt goes on, or else the one with least to
        do. What many begin with (a system prompt) soon is everywhere, and must not draw all of them
        to one cache.
        """
        running = self.running
        counts = [running[place.id] for place in places]
        most = (sum(counts) + 1) * _SKEW / len(places) + _SLACK_REQUESTS
        best, best_depth, best_key = None, 0, (True, 0, 0)
        for place, count in zip(places, counts, strict=True):
            if count + 1 > most:
                continue
            depth = place.index.depth(chain, best_depth)
            if depth < best_depth or not depth:
                continue
            end = place.index.mark(chain[depth - 1])
            key = (not (end & 1 and goes_on(prompt, depth, end)), count, place.work)
            if depth > best_depth or key < best_key:
                best, best_depth, best_key = place, depth, key
        if best is None or not best_key[0] or _may_follow(best, best_depth, chain, places):
            return best, best_depth
        return None, 0

    def _idlest(self, group: Group, places: Sequence[Place]) -> Place:
        """Fewest requests, then least new text; equals take turns."""
        running = self.running
        group.turn += 1
        start = group.turn % len(places)
        turned = [*places[start:], *places[:start]]
        return min(turned, key=lambda place: (running[place.id], place.work))


def _may_follow(place: Place, depth: int, chain: list[int], places: Sequence[Place]) -> bool:
    """Is enough of a prompt cached, and has its holder not had more new text than others?"""
    most = sum(each.work for each in places) / len(places) * _TEXT_SKEW
    return depth * 2 >= len(chain) and place.work <= most + place.index.room_bytes // _TEXT_SLACK
