"""The choice against its plain form, over traffic by chance: the same, pick by pick."""

import random
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from serve.roster import Chooser, Replica, Roster, ServedModel
from serve.roster.choice import Lease
from serve.roster.roster import Routing
from tests.roster.plain import PlainChooser, PlainLease

TEXT = random.Random(3).randbytes(1 << 17).hex().encode()
_ROUTINGS = st.sampled_from(("prefix", "prefix", "prefix", *get_args(Routing)))


class Traffic:
    """Requests to a few replicas with small caches: conversations that begin alike, at once as many
    as chance has it, while replicas come, go, and begin other lives."""

    def __init__(self, rng: random.Random, replicas: int, routing: Routing) -> None:
        self._rng = rng
        self._replicas = [self._replica(n) for n in range(replicas)]
        self._routing = routing
        self._chooser, self._plain = Chooser(), PlainChooser()
        self._running: list[tuple[Lease, PlainLease, int]] = []
        self._talks = [self._talk() for _ in range(12)]
        self.update()

    def _replica(self, number: int) -> Replica:
        kv_tokens = self._rng.choice((0, 3000, 10_000))
        return Replica(f"m-{number}", f"unix:/{number}", kv_tokens, epoch=self._rng.randrange(99))

    def _talk(self) -> bytes:
        """One of two system prompts, or none, and a question."""
        system = self._rng.choice((0, 700, 3000))
        start = self._rng.randrange(1 << 17)
        return (
            b"["
            + TEXT[:system]
            + TEXT[start : start + self._rng.randrange(self._rng.choice((60, 2000)))]
        )

    @property
    def busy(self) -> int:
        return len(self._running)

    def update(self) -> None:
        self._model = ServedModel(
            "m", (), "ready", 8192, 0, tuple(self._replicas), routing=self._routing
        )
        self._chooser.update(Roster(models=(self._model,)))
        self._plain.update(self._model)

    def change(self) -> None:
        rng, place = self._rng, self._rng.randrange(len(self._replicas))
        if rng.random() < 0.5:
            self._replicas[place] = self._replica(place)
        elif rng.random() < 0.5:
            self._replicas.append(self._replica(len(self._replicas)))
        elif len(self._replicas) > 1:
            self._replicas.pop()
        self.update()

    def pick(self) -> None:
        rng = self._rng
        number = rng.randrange(len(self._talks))
        if rng.random() < 0.15:
            self._talks[number] = self._talk()
        start = rng.randrange(1 << 17)
        self._talks[number] += TEXT[start : start + rng.randrange(rng.choice((60, 1500)))]
        prompt = self._talks[number] + b"]"
        ids = [replica.id for replica in self._replicas]
        avoid = frozenset(rng.sample(ids, rng.choice((0, 0, 0, 0, 0, min(1, len(ids)), len(ids)))))
        lease = self._chooser.pick(self._model, prompt, b"", avoid)
        plain = self._plain.pick(self._model, prompt, avoid)
        assert (lease and lease.replica) == (plain and plain.place.replica)
        if lease and plain:
            self._running.append((lease, plain, len(prompt)))

    def end(self) -> None:
        if not self._running:
            return
        lease, plain, size = self._running.pop(self._rng.randrange(len(self._running)))
        tokens = self._rng.choice((None, 0, size // 4, size // 3))
        cached = self._rng.choice((None, 0, tokens, tokens, tokens))
        for _ in range(2):
            lease.end(tokens, cached)
        plain.end(tokens, cached)

    def compare(self) -> None:
        blocks = [len(place.young) + len(place.old) for place in self._plain.places]
        assert self._chooser.blocks == sum(blocks)
        assert +self._chooser.running == +self._plain.running


@given(st.integers(0, 1 << 32), st.integers(1, 5), _ROUTINGS, st.integers(1, 40))
@settings(deadline=None)
def test_it_chooses_as_its_plain_form(
    seed: int, replicas: int, routing: Routing, at_once: int
) -> None:
    rng = random.Random(seed)
    traffic = Traffic(rng, replicas, routing)
    for _ in range(300):
        if rng.random() < 0.01:
            traffic.change()
        if traffic.busy < at_once and rng.random() < 0.7:
            traffic.pick()
        else:
            traffic.end()
    traffic.compare()
