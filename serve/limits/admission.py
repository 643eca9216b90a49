"""Check everything, reserve in one go, settle once; and wait in between if a model is crowded."""

import asyncio
import time
from dataclasses import dataclass, field

import msgspec

from serve.errors import QueueFull, QueueTimeout
from serve.limits.claim import Claim
from serve.limits.headers import headers_of
from serve.limits.line import Line
from serve.limits.pace import Pace
from serve.limits.queue import FairQueue
from serve.limits.table import Owner, Table
from serve.quota import Key, Limits, Priority, Tenant

_POLL_S = 0.003  # how soon a waiter notices what another process has given back
_MOST_PARTIES = 10_000  # combinations of key, tenant and model that are kept ready
_FREE = Limits()


class Ask(msgspec.Struct, frozen=True):  # which is made in a fifth of a dataclass's time
    """What a request asks for. `key` None: no key is asked for here.

    `tokens`: input and output that it may take at most, as estimated; `nanos`: what they may cost.
    `slots`: requests that the model's replicas work on at once, 0: as many as come.
    """

    key: Key | None
    tenant: Tenant
    model: str
    model_limits: Limits
    tokens: int
    nanos: int
    priority: Priority
    slots: int
    longest_wait_s: float


class Ticket:
    """One request that is in. `waited_s`: in the queue."""

    __slots__ = ("_admission", "_claim", "_model", "waited_s")

    def __init__(
        self,
        waited_s: float = 0.0,
        admission: "Admission | None" = None,
        claim: Claim | None = None,
        model: str = "",
    ) -> None:
        self.waited_s = waited_s
        self._admission, self._claim, self._model = admission, claim, model

    def headers(self) -> list[tuple[bytes, bytes]]:
        """OpenAI's `x-ratelimit-*` of the tightest limits; none where there is no limit. As they
        are now; none any more once it is settled."""
        if self._admission is None or self._claim is None:
            return []
        return self._admission.headers(self._claim)

    def settle(self, tokens: int, nanos: int) -> None:
        """The request is over, and took so much; what was reserved beyond is given back. Once:
        further calls do nothing."""
        claim, self._claim = self._claim, None
        if claim is not None and self._admission is not None:
            self._admission.left(self._model, claim.settle(tokens, nanos))


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    ask: Ask
    claim: Claim
    since_s: float
    turn: "asyncio.Future[Ticket]"

    @property
    def tenant(self) -> Tenant:
        return self.ask.tenant

    @property
    def priority(self) -> Priority:
        return self.ask.priority

    @property
    def tokens(self) -> int:
        return max(1, self.ask.tokens)


@dataclass(slots=True)
class _Model:
    """`slots`: as the latest request said."""

    queue: FairQueue[_Waiter] = field(default_factory=FairQueue)
    pace: Pace = field(default_factory=Pace)
    slots: int = 0
    is_polled: bool = False


@dataclass(frozen=True, slots=True)
class _Party:
    """Whose limits a request meets, as long as they are these."""

    limits: tuple[Limits, Limits, Limits]
    is_bounded: bool
    lines: tuple[Line, ...]
    model_line: Line | None
    pace: Pace


class Admission:
    """One per gateway process.

    Limits refuse at once, with the wait that the tightest of them needs; only a model whose slots
    are taken lets requests wait. The limits are asked when a request comes: from then on its
    reservation is held, and one that waits is one of its key's requests at once. Leaving the queue
    gives all of it back. When several processes share the table, `most_waiting` is for all of them
    together, and nobody overtakes: as long as anybody waits for a model, newcomers wait too.
    Turns are fair within a process; among processes, a place goes to the first who looks.
    """

    def __init__(self, table: Table, most_waiting: int) -> None:
        self._table, self._most_waiting = table, most_waiting
        self._parties: dict[tuple[str, str, str], _Party] = {}
        self._models: dict[str, _Model] = {}

    def try_enter(self, ask: Ask) -> Ticket | None:
        """In at once; None if it must wait. RateLimited, TooLongForLimit."""
        party = self._party(ask)
        if not party.lines:
            return Ticket()
        claim = Claim(self._table, party.lines, party.model_line, ask.tokens, ask.nanos)
        if claim.enter(ask.slots, party.pace.usual_s):
            return Ticket(0.0, self, claim, ask.model)
        return None

    async def enter(self, ask: Ask) -> Ticket:
        """In, after a wait perhaps. RateLimited, TooLongForLimit, QueueFull, QueueTimeout; a
        cancelled wait costs nothing."""
        if (ticket := self.try_enter(ask)) is not None:
            return ticket
        waiter = self._join(ask)
        try:
            async with asyncio.timeout(ask.longest_wait_s):
                return await waiter.turn
        except TimeoutError as error:
            if waiter.turn.done() and not waiter.turn.cancelled():
                return waiter.turn.result()  # let in at the very last moment
            retry_after_s = self._leave(waiter)
            waited_s = time.monotonic() - waiter.since_s
            raise QueueTimeout(ask.model, waited_s, retry_after_s) from error
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                waiter.claim.take_back()
                self._pump(ask.model)
            else:
                self._leave(waiter)
            raise

    def _join(self, ask: Ask) -> _Waiter:
        party, model = self._party(ask), self._model(ask.model)
        claim = Claim(self._table, party.lines, party.model_line, ask.tokens, ask.nanos)
        model.slots = ask.slots
        if not claim.wait(self._most_waiting, model.pace.usual_s):
            raise QueueFull(ask.model, model.pace.drain_s(len(model.queue), ask.slots))
        turn = asyncio.get_running_loop().create_future()
        waiter = _Waiter(ask, claim, time.monotonic(), turn)
        model.queue.push(waiter)
        self._pump(ask.model)  # a place may have become free since `try_enter`
        return waiter

    def _leave(self, waiter: _Waiter) -> float:
        """Seconds after which it would have been its turn, about."""
        model = self._models[waiter.ask.model]
        model.queue.remove(waiter)
        waiter.claim.leave()
        return model.pace.drain_s(len(model.queue), model.slots)

    # What follows is for tickets.

    def left(self, name: str, lasted_s: float) -> None:
        """A request is over: the next one may come."""
        model = self._model(name)
        if not model.queue.size:
            model.pace.note(0.0, lasted_s, is_crowded=False)  # the time is not looked at
            return
        model.pace.note(time.monotonic(), lasted_s, is_crowded=True)
        self._pump(name)

    def headers(self, claim: Claim) -> list[tuple[bytes, bytes]]:
        """Of the claim's limits."""
        return headers_of(claim.levels(), self._table.clock.monotonic_ns())

    def _pump(self, name: str) -> None:
        """Let in as many as there is room for."""
        model = self._models[name]
        while len(model.queue):
            now_s = time.monotonic()
            waiter = model.queue.next(now_s)
            if waiter.turn.done():  # it leaves, and will say so in the next turn of the loop
                model.queue.remove(waiter)
                continue
            if not waiter.claim.let_in(model.slots):
                break
            model.queue.serve(waiter)
            waiter.turn.set_result(Ticket(now_s - waiter.since_s, self, waiter.claim, name))
        if len(model.queue) and self._table.is_shared and not model.is_polled:
            model.is_polled = True
            asyncio.get_running_loop().call_later(_POLL_S, self._poll, name)

    def _poll(self, name: str) -> None:
        self._models[name].is_polled = False
        self._pump(name)

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = _Model()
        return model

    def _party(self, ask: Ask) -> _Party:
        key = ask.key
        name = key.id if key is not None else "", ask.tenant.name, ask.model
        party = self._parties.get(name)
        if party is not None:
            of_key, of_tenant, of_model = party.limits
            if (
                of_tenant is ask.tenant.limits
                and of_model is ask.model_limits
                and (key is None or of_key is key.limits)
                and party.is_bounded == (ask.slots > 0)
            ):
                return party
        if len(self._parties) >= _MOST_PARTIES:
            self._parties.clear()
        party = self._parties[name] = self._new_party(ask)
        return party

    def _new_party(self, ask: Ask) -> _Party:
        limits = ask.key.limits if ask.key else _FREE, ask.tenant.limits, ask.model_limits
        owners: tuple[Owner, Owner, Owner] = "key", "tenant", "model"
        names = ask.key.id if ask.key else "", ask.tenant.name, ask.model
        lines = [
            Line(self._table, owner, name, limit)
            for owner, name, limit in zip(owners, names, limits, strict=True)
            if limit != _FREE or (owner == "model" and ask.slots)
        ]
        model_line = lines[-1] if ask.slots else None
        return _Party(limits, ask.slots > 0, tuple(lines), model_line, self._model(ask.model).pace)
