"""The replicas of a model, as one gateway process knows them."""

from collections.abc import Sequence

from serve.roster.index import PrefixIndex
from serve.roster.roster import Replica, ServedModel

_BYTES_PER_TOKEN = 4.0  # until answers have told
_LEAST_BYTES, _MOST_BYTES = 1.0, 8.0  # an image is many bytes, and no text
_LEARNING = 0.05
_USUAL_KV_TOKENS = 1_000_000  # where nobody says
_PICKS_A_MARK = 16


class Load:
    """What a replica has to do for this process, in whichever of its lives it was asked."""

    __slots__ = ("requests",)

    def __init__(self) -> None:
        self.requests = 0


class Place:
    """A replica in one of its lives, as far as this process knows it."""

    __slots__ = ("id", "index", "kv_tokens", "left", "load", "mark", "open", "replica", "work")

    def __init__(self, replica: Replica, load: Load, work: int) -> None:
        self.replica = replica
        self.load = load
        self.id = replica.id
        self.kv_tokens = 0
        self.work = work  # bytes that it was sent and did not know
        self.index = PrefixIndex()
        # Leases are counted by the mark that they left in the index, some sharing one: a block may
        # not be in the cache yet while one of those who left its mark still runs.
        self.mark = 2
        self.left = _PICKS_A_MARK  # until there is another mark
        self.open: dict[int, int] = {self.mark: 0}

    def next_mark(self) -> None:
        """They are even numbers; odd ones mark ends of chains."""
        self.mark += 2
        self.left = _PICKS_A_MARK
        for mark in [mark for mark, leases in self.open.items() if not leases]:
            del self.open[mark]
        self.open[self.mark] = 0

    def is_read(self, chain: Sequence[int], depth: int) -> bool:
        """Have all who left the first `depth` blocks here ended, so that these are in the cache?

        The last block may hold the end of a chain instead of a mark; the one before it does not.
        """
        index, block = self.index, chain[depth - 1]
        mark = index.young.get(block) or index.old[block]
        if mark & 1:
            mark = index.mark(chain[depth - 2]) if depth > 1 else 1
        return not (mark & 1 or self.open.get(mark))


class Group:
    """The replicas of a model, in the order of the roster."""

    __slots__ = ("bytes_per_token", "model", "places", "routing", "turn")

    def __init__(self, model: ServedModel, before: "Group | None", loads: dict[str, Load]) -> None:
        self.model = model
        # There is nothing to choose from one.
        self.routing = model.routing if len(model.replicas) > 1 else None
        self.bytes_per_token: float = before.bytes_per_token if before else _BYTES_PER_TOKEN
        self.turn: int = before.turn if before else 0
        known = {place.id: place for place in before.places} if before else {}
        # Who comes new has done as much as the others, or it would get all that is new.
        usual = sum(place.work for place in known.values()) // len(known) if known else 0
        self.places: list[Place] = []
        for replica in model.replicas:
            place = known.get(replica.id)
            if place is None or _life(place.replica) != _life(replica):
                place = Place(replica, loads.setdefault(replica.id, Load()), usual)
            self.places.append(self._measured(place, replica))

    def _measured(self, place: Place, replica: Replica) -> Place:
        place.replica = replica
        place.kv_tokens = replica.kv_tokens or _USUAL_KV_TOKENS
        place.index.room_bytes = int(place.kv_tokens * self.bytes_per_token)
        return place

    def learn(self, place: Place, n_bytes: int, tokens: int) -> None:
        """A prompt of so many bytes was so many tokens to this replica."""
        sample = n_bytes / tokens
        if sample > _MOST_BYTES:
            sample = _MOST_BYTES
        elif sample < _LEAST_BYTES:
            sample = _LEAST_BYTES
        rate = self.bytes_per_token
        self.bytes_per_token = rate = rate + _LEARNING * (sample - rate)
        place.index.room_bytes = int(place.kv_tokens * rate)

    def fade(self) -> None:
        """Count what was sent to replicas so far for less."""
        for place in self.places:
            place.work //= 2


def _life(replica: Replica) -> tuple[str, int]:
    return replica.address, replica.epoch
