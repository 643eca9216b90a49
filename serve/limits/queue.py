"""Whose turn it is at one model: weighted deficit round robin in tokens. Pure: no clock.

Among tenants: each in turn gets tokens in proportion to its weight, and goes ahead while they last,
so a crowded model is shared by tokens, not by who asks the most. Within a tenant: the most urgent
class first, and in it the one who came first. Who has waited `AGE_S` counts as one class more
urgent, so nobody waits for ever. Between tenants the class matters in one way only: batch requests
that are not yet that old wait until no tenant has another kind of request. So nobody gets a larger
share by calling themselves urgent, and batches fill what is left.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from serve.quota import Priority, Tenant

AGE_S = 30.0
QUANTUM_TOKENS = 1024  # that a tenant of weight 1 gets per round

_CLASSES: tuple[Priority, ...] = ("interactive", "default", "batch")
_BATCH = 2


class Waiter(Protocol):
    """Somebody in the queue. `since_s`: when it came, on any steady clock."""

    @property
    def tenant(self) -> Tenant: ...
    @property
    def priority(self) -> Priority: ...
    @property
    def tokens(self) -> int: ...
    @property
    def since_s(self) -> float: ...


W = TypeVar("W", bound=Waiter)


@dataclass(slots=True)
class _Flow(Generic[W]):
    """One tenant's waiters."""

    weight: int
    classes: tuple["OrderedDict[int, W]", ...] = field(
        default_factory=lambda: tuple(OrderedDict() for _ in _CLASSES)
    )
    deficit: int = 0

    def head(self, now_s: float) -> tuple[int, W]:
        """Who is next, and how urgent it has become."""
        heads = [
            (max(0, level - int((now_s - first.since_s) // AGE_S)), first.since_s, level)
            for level, waiters in enumerate(self.classes)
            if waiters and (first := next(iter(waiters.values())))
        ]
        urgency, _, level = min(heads)
        return urgency, next(iter(self.classes[level].values()))


class FairQueue(Generic[W]):
    """The waiters of one model."""

    def __init__(self) -> None:
        self._flows: OrderedDict[str, _Flow[W]] = OrderedDict()  # the first one's turn it is
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def push(self, waiter: W) -> None:
        """Somebody comes."""
        flow = self._flows.get(waiter.tenant.name)
        if flow is None:
            flow = self._flows[waiter.tenant.name] = _Flow(waiter.tenant.weight)
        flow.weight = max(1, waiter.tenant.weight)
        flow.classes[_CLASSES.index(waiter.priority)][id(waiter)] = waiter
        self.size += 1

    def remove(self, waiter: W) -> None:
        """Somebody leaves, unserved. Nothing happens if it is not there (any more)."""
        flow = self._flows.get(waiter.tenant.name)
        if flow and flow.classes[_CLASSES.index(waiter.priority)].pop(id(waiter), None):
            self.size -= 1
            if not any(flow.classes):
                del self._flows[waiter.tenant.name]

    def next(self, now_s: float) -> W:
        """Whose turn it is; the same one until it is served or removed, or somebody comes."""
        heads = {name: flow.head(now_s) for name, flow in self._flows.items()}
        is_batch_only = all(urgency >= _BATCH for urgency, _ in heads.values())
        turns = [
            (name, self._flows[name], waiter)
            for name, (urgency, waiter) in heads.items()
            if urgency < _BATCH or is_batch_only
        ]
        if all(waiter.tokens > flow.deficit for _, flow, waiter in turns):
            self._go_round(turns)
        name, _, waiter = next(turn for turn in turns if turn[2].tokens <= turn[1].deficit)
        self._go_to(name, turns)
        return waiter

    def serve(self, waiter: W) -> None:
        """It goes ahead, and pays for it with its tenant's tokens."""
        self._flows[waiter.tenant.name].deficit -= waiter.tokens
        self.remove(waiter)

    def _go_round(self, turns: list[tuple[str, _Flow[W], W]]) -> None:
        """As many whole rounds as it takes until somebody can go ahead."""
        rounds = min(
            -(-(waiter.tokens - flow.deficit) // (flow.weight * QUANTUM_TOKENS))
            for _, flow, waiter in turns
        )
        for _, flow, _ in turns:
            flow.deficit += rounds * flow.weight * QUANTUM_TOKENS

    def _go_to(self, name: str, turns: list[tuple[str, _Flow[W], W]]) -> None:
        """Those who could not go ahead have had their turn."""
        for passed, _, _ in turns:
            if passed == name:
                break
            self._flows.move_to_end(passed)
