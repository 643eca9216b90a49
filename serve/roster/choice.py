"""Which replica answers a request, and who works on how much."""

from collections import Counter
from operator import attrgetter
from typing import cast

from serve.roster.hashing import bytes_in, chain_of, end_of, goes_on
from serve.roster.places import Group, Load, Place
from serve.roster.roster import Replica, Roster, ServedModel

# Nobody gets a request for what it may have cached, if it would then have more than this times
# the mean, and a few.
_SKEW = 1.25
_SLACK_REQUESTS = 2
# The same for new text, which is what fills caches: a part of the cache more than the mean. By
# simulation (tests/roster/simulation.py).
_TEXT_SKEW = 1.1
_TEXT_SLACK = 64
_LOAD = attrgetter("load.requests", "work")  # getters in C: for each place, at each request
_REQUESTS = attrgetter("load.requests")
_WORK = attrgetter("work")
_LEAST_ENDING = 3  # blocks
# What was sent to replicas is halved when one was sent so many caches full. What was sent before
# has left the caches, and whose turn it was then says nothing of whose it is now.
_CACHES_REMEMBERED = 0.5
# An engine counts whole blocks of up to 128 tokens.
_GRAIN_TOKENS = 128


class Lease:
    """One request holding one replica, until `end`."""

    __slots__ = ("_group", "_known", "_mark", "_place", "_size")

    # Of the roster that is there now. A getter in C: it is asked for some times a request.
    replica = cast("Replica", property(attrgetter("_place.replica")))

    def __init__(
        self, group: Group, place: Place, size: int = 0, known: int = 0, mark: int = 0
    ) -> None:
        """`known` of the prompt's `size` bytes should be cached; below 0: nobody knows. `mark`: the
        place's, for what the index was told; 0: nothing."""
        self._group: Group | None = group
        self._place = place
        self._size, self._known, self._mark = size, known, mark
        place.load.requests += 1

    def end(self, prompt_tokens: int | None = None, cached_tokens: int | None = None) -> None:
        """Give the replica back; a second call does nothing. What the engine said of the prompt
        (None: it said nothing) corrects what we believe of its prefix cache."""
        group, place = self._group, self._place
        if group is None:
            return
        self._group = None
        place.load.requests -= 1
        mark = self._mark
        if not mark:
            return
        place.open[mark] -= 1
        if prompt_tokens:
            size, known = self._size, self._known
            group.learn(place, size, prompt_tokens)
            if cached_tokens is not None and known >= 0:
                predicted = known * prompt_tokens // size
                if cached_tokens * 2 < predicted:
                    if predicted - cached_tokens > _GRAIN_TOKENS:
                        place.index.miss()
                elif place.index.share < 1:
                    place.index.hit()


class Chooser:
    """One per gateway process."""

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}
        self._groups: dict[str, Group] = {}

    @property
    def running(self) -> Counter[str]:
        """Replica id → requests of this process that it has."""
        return Counter({id: load.requests for id, load in self._loads.items()})

    @property
    def blocks(self) -> int:
        """Entries of the prefix indexes, all together."""
        places = [place for group in self._groups.values() for place in group.places]
        return sum(len(place.index) for place in places)

    def update(self, roster: Roster) -> None:
        """Replicas come and go; what is known of those that stay is kept."""
        self._groups = {
            model.name: Group(model, self._groups.get(model.name), self._loads)
            for model in roster.models
        }
        there = {replica.id for model in roster.models for replica in model.replicas}
        for gone in [id for id, count in self.running.items() if not count and id not in there]:
            del self._loads[gone]

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
            group = self._groups[model.name] = Group(model, group, self._loads)
        places = group.places
        if avoid:
            places = [place for place in places if place.id not in avoid]
            if not places:
                return None
        if group.routing == "prefix" and (chain := chain_of(prompt, model.name, salt)):
            return _by_prefix(group, places, chain, prompt)
        if group.routing == "round-robin":
            group.turn += 1
            return Lease(group, places[group.turn % len(places)])
        if group.routing:
            return Lease(group, _idlest(group, places))
        return Lease(group, places[0]) if places else None


def _by_prefix(group: Group, places: list[Place], chain: list[int], prompt: bytes) -> Lease:
    """A lease on who shall get a request for what it has cached of it, or on the idlest.

    Of those that may take more, the one that holds the longest beginning. A conversation stays
    where it is, so of equals the one where the prompt goes on, or else the one with least to
    do. What many begin with (a system prompt) soon is everywhere, and must not draw all of them
    to one cache.
    """
    place, depth, goes = _longest(places, chain, prompt)
    # Most have room. Only if this one has not are those looked for that have.
    if place is not None and place.load.requests >= _SLACK_REQUESTS:
        most = _most_requests(places)
        if place.load.requests + 1 > most:
            roomy = [other for other in places if other.load.requests + 1 <= most]
            place, depth, goes = _longest(roomy, chain, prompt)
    if place is None or not (goes or _may_follow(place, depth, chain, places)):
        place = _idlest(group, places)
        depth = place.index.depth(chain)
    size, index, known = len(prompt), place.index, bytes_in(depth)
    is_sure = depth > 0 and place.is_read(chain, depth)
    place.left -= 1
    if not place.left:
        place.next_mark()
    mark = place.mark
    place.open[mark] += 1
    # An end is a number of its own, which very short chains have no room for.
    end = mark if len(chain) < _LEAST_ENDING else end_of(prompt, len(chain))
    index.use(chain, size, mark, end)
    place.work = work = place.work + size - known
    if work > index.room_bytes * _CACHES_REMEMBERED:
        group.fade()
    return Lease(group, place, size, known if is_sure else -1, mark)


def _longest(
    places: list[Place], chain: list[int], prompt: bytes
) -> tuple[Place | None, int, bool]:
    """Who has the longest beginning, of how many blocks, and whether the prompt goes on there."""
    size, depth, block = len(chain), 1, chain[0]
    equals: list[Place] = []
    going: list[Place] = []
    for place in places:
        index = place.index
        mark = index.young.get(block) or index.old.get(block)
        if not mark:
            continue
        # A call is worth it only if there is more: most have nothing beyond what the others have.
        if depth < size and ((more := chain[depth]) in index.young or more in index.old):
            depth = index.depth(chain, depth + 1)
            block = chain[depth - 1]
            mark = index.mark(block)
            equals, going = [], []
        equals.append(place)
        if mark & 1 and goes_on(prompt, depth, mark):
            going.append(place)
    if not equals:
        return None, 0, False
    return min(going or equals, key=_LOAD), depth, bool(going)


def _may_follow(place: Place, depth: int, chain: list[int], places: list[Place]) -> bool:
    """Is enough of a prompt cached, and has its holder not had more new text than others?"""
    if depth * 2 < len(chain):
        return False
    most: float = sum(map(_WORK, places)) / len(places) * _TEXT_SKEW
    return place.work <= most + place.index.room_bytes // _TEXT_SLACK


def _most_requests(places: list[Place]) -> float:
    """What a place may have at most, with one more, to get it for what it has cached."""
    requests: int = sum(map(_REQUESTS, places))
    return (requests + 1) * _SKEW / len(places) + _SLACK_REQUESTS


def _idlest(group: Group, places: list[Place]) -> Place:
    """Fewest requests, then least new text; equals take turns."""
    group.turn += 1
    start = group.turn % len(places)
    return min([*places[start:], *places[:start]], key=_LOAD)
