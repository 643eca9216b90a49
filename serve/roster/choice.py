"""Which replica answers a request, and who works on how much."""

from collections import defaultdict
from itertools import count

from serve.roster.roster import Replica, Roster, ServedModel


class Lease:
    """One request holding one replica, until `end`."""

    __slots__ = ("_chooser", "_is_over", "replica")

    def __init__(self, chooser: "Chooser", replica: Replica) -> None:
        self._chooser = chooser
        self._is_over = False
        self.replica = replica

    def end(self, prompt_tokens: int | None = None, cached_tokens: int | None = None) -> None:
        """Give the replica back; a second call does nothing. What the engine said of the prompt
        (None: it said nothing) corrects what we believe of its prefix cache."""
        if not self._is_over:
            self._is_over = True
            self._chooser.running[self.replica.id] -= 1


class Chooser:
    """One per gateway process. `running`: replica id → requests of this process that it has."""

    def __init__(self) -> None:
        self.running: defaultdict[str, int] = defaultdict(int)
        self._ties = count()

    def update(self, roster: Roster) -> None:
        """Replicas come and go; what is known of those that stay is kept."""

    def pick(
        self, model: ServedModel, prompt: bytes, salt: bytes, avoid: frozenset[str] = frozenset()
    ) -> Lease | None:
        """A lease on the best replica; None if all of them are in `avoid` (ids), or there is none.

        `prompt`: the bytes of the messages as they came. `salt`: what separates prefix caches.
        """
        replicas = [replica for replica in model.replicas if replica.id not in avoid]
        if not replicas:
            return None
        fewest = min(self.running[replica.id] for replica in replicas)
        idlest = [replica for replica in replicas if self.running[replica.id] == fewest]
        chosen = idlest[next(self._ties) % len(idlest)]
        self.running[chosen.id] += 1
        return Lease(self, chosen)
