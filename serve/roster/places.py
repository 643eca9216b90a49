"""The replicas of a model, as one gateway process knows them."""

from collections import defaultdict
from collections.abc import Sequence

from serve.roster.index import PrefixIndex
from serve.roster.roster import Replica, ServedModel

_BYTES_PER_TOKEN = 4.0  # until answers have told
_LEAST_BYTES, _MOST_BYTES = 1.0, 8.0  # an image is many bytes, and no text
_LEARNING = 0.05
_USUAL_KV_TOKENS = 1_000_000  # where nobody says
# What was sent to replicas is halved when one was sent so many caches full: long ago counts less.
_CACHES_REMEMBERED = 2
_PICKS_A_MARK = 16


class Place:
    """A replica in one of its lives, as far as this process knows it."""

    __slots__ = ("id", "index", "mark", "open", "picks", "replica", "work")

    def __init__(self, replica: Replica, work: int) -> None:
        self.replica = replica
        self.id = replica.id
        self.work = work  # bytes that it was sent and did not know
        self.index = PrefixIndex()
        # Leases are counted by the mark that they left in the index, some sharing one: a block may
        # not be in the cache yet while one of those who left its mark still runs.
        self.mark = 2
        self.picks = 0
        self.open: defaultdict[int, int] = defaultdict(int)

    def open_mark(self) -> int:
        """An even number; odd ones mark ends of chains."""
        self.picks += 1
        if self.picks % _PICKS_A_MARK == 0:
            self.mark += 2
        self.open[self.mark] += 1
        return self.mark

    def close_mark(self, mark: int) -> None:
        self.open[mark] -= 1
        if not self.open[mark]:
            del self.open[mark]

    def is_read(self, chain: Sequence[int], depth: int) -> bool:
        """Have all who left the first `depth` blocks here ended, so that these are in the cache?

        The last block may hold the end of a chain instead of a mark; the one before it does not.
        """
        mark = self.index.mark(chain[depth - 1]) if depth else 1
        if mark & 1:
            mark = self.index.mark(chain[depth - 2]) if depth > 1 else 1
        return not mark & 1 and mark not in self.open


class Group:
    """The replicas of a model, in the order of the roster."""

    __slots__ = ("bytes_per_token", "model", "places", "turn")

    def __init__(self, model: ServedModel, before: "Group | None") -> None:
        self.model = model
        self.bytes_per_token: float = before.bytes_per_token if before else _BYTES_PER_TOKEN
        self.turn: int = before.turn if before else 0
        known = {place.id: place for place in before.places} if before else {}
        # Who comes new has done as much as the others, or it would get all that is new.
        usual = sum(place.work for place in known.values()) // len(known) if known else 0
        self.places: list[Place] = [
            self._place(replica, known, usual) for replica in model.replicas
        ]

    def _place(self, replica: Replica, known: dict[str, Place], usual: int) -> Place:
        place = known.get(replica.id)
        if place is None or _life(place.replica) != _life(replica):
            place = Place(replica, usual)
        place.replica = replica
        self._measure(place)
        return place

    def learn(self, place: Place, n_bytes: int, tokens: int) -> None:
        """A prompt of so many bytes was so many tokens to this replica."""
        sample = min(max(n_bytes / tokens, _LEAST_BYTES), _MOST_BYTES)
        self.bytes_per_token += _LEARNING * (sample - self.bytes_per_token)
        self._measure(place)

    def _measure(self, place: Place) -> None:
        kv_tokens = place.replica.kv_tokens or _USUAL_KV_TOKENS
        place.index.room_bytes = int(kv_tokens * self.bytes_per_token)

    def count(self, place: Place, n_bytes: int) -> None:
        place.work += n_bytes
        if place.work > _CACHES_REMEMBERED * place.index.room_bytes:
            for each in self.places:
                each.work //= 2


def _life(replica: Replica) -> tuple[str, int]:
    return replica.address, replica.epoch
