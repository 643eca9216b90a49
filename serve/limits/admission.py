"""Check everything, reserve in one go, settle once; and wait in between if a model is crowded."""

import asyncio
import time
from dataclasses import dataclass, field

import msgspec

from serve.errors import QueueFull, QueueTimeout
from serve.limits.claim import Claim, settle
from serve.limits.line import Line
from serve.limits.pace import Pace
from serve.limits.party import Amounts, Party, Taken
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


class Ticket(msgspec.Struct, eq=False):
    """One request that is in. `waited_s`: in the queue. The rest is the room's own: what it has
    reserved of whose limits, since when; `met` None: nothing any more."""

    waited_s: float = 0.0
    admission: "Admission | None" = None
    met: "_Met | None" = None
    reserved: Amounts = (0, 0)
    taken: Taken = []
    since_ns: int = 0

    def headers(self) -> list[tuple[bytes, bytes]]:
        """OpenAI's `x-ratelimit-*` of the tightest limits; none where there is no limit. As they
        are now; none any more once it is settled."""
        return self.met.party.headers() if self.met is not None else []

    def settle(self, tokens: int, nanos: int) -> None:
        """The request is over, and took so much; what was reserved beyond is given back. Once:
        further calls do nothing."""
        met, self.met = self.met, None
        if met is not None and self.admission is not None:
            self.admission.settle(self, met, (tokens, nanos))


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    ask: Ask
    met: "_Met"
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

    name: str
    queue: FairQueue[_Waiter] = field(default_factory=FairQueue)
    pace: Pace = field(default_factory=Pace)
    slots: int = 0
    is_polled: bool = False


@dataclass(frozen=True, slots=True)
class _Met:
    """Whose limits a request meets, as long as they are these."""

    of_key: Limits
    of_tenant: Limits
    of_model: Limits
    party: Party
    model: _Model


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
        self._met: dict[tuple[str, str, str, bool], _Met] = {}
        self._models: dict[str, _Model] = {}

    def try_enter(self, ask: Ask) -> Ticket | None:
        """In at once; None if it must wait. RateLimited, TooLongForLimit."""
        met = self._meet(ask)
        party, table, tokens, nanos = met.party, self._table, ask.tokens, ask.nanos
        if not party.lines:
            return Ticket()
        now_ns = table.tick()
        table.lock()
        try:
            taken = party.enter(tokens, nanos, ask.slots, now_ns)
            if taken is None:
                claim = Claim(party, tokens, nanos)
                if not claim.enter(ask.slots, met.model.pace.usual_s, now_ns):
                    return None
                taken = claim.taken
        finally:
            table.unlock()
        return Ticket(0.0, self, met, (tokens, nanos), taken, now_ns)

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
                self._pump(waiter.met.model)
            else:
                self._leave(waiter)
            raise

    def _join(self, ask: Ask) -> _Waiter:
        met = self._meet(ask)
        model, claim = met.model, Claim(met.party, ask.tokens, ask.nanos)
        model.slots = ask.slots
        if not claim.wait(self._most_waiting, model.pace.usual_s):
            raise QueueFull(ask.model, model.pace.drain_s(len(model.queue), ask.slots))
        turn = asyncio.get_running_loop().create_future()
        waiter = _Waiter(ask, met, claim, time.monotonic(), turn)
        model.queue.push(waiter)
        self._pump(model)  # a place may have become free since `try_enter`
        return waiter

    def _leave(self, waiter: _Waiter) -> float:
        """Seconds after which it would have been its turn, about."""
        model = waiter.met.model
        model.queue.remove(waiter)
        waiter.claim.leave()
        return model.pace.drain_s(len(model.queue), model.slots)

    def settle(self, ticket: Ticket, met: _Met, used: Amounts) -> None:
        """For tickets: a request is over, and the next one may come."""
        table = self._table
        now_ns = table.tick()
        table.lock()
        try:
            if not met.party.settle(ticket.reserved, used, ticket.taken, now_ns):
                settle(met.party, ticket.reserved, used, ticket.taken, now_ns)
        finally:
            table.unlock()
        model, lasted_s = met.model, (now_ns - ticket.since_ns) / 10**9
        if model.queue.size:
            model.pace.note(lasted_s, time.monotonic())
            self._pump(model)
        else:
            model.pace.note(lasted_s)

    def _pump(self, model: _Model) -> None:
        """Let in as many as there is room for."""
        while len(model.queue):
            now_s = time.monotonic()
            waiter = model.queue.next(now_s)
            if waiter.turn.done():  # it leaves, and will say so in the next turn of the loop
                model.queue.remove(waiter)
                continue
            if not waiter.claim.let_in(model.slots):
                break
            model.queue.serve(waiter)
            ask, claim, waited_s = waiter.ask, waiter.claim, now_s - waiter.since_s
            reserved = ask.tokens, ask.nanos
            ticket = Ticket(waited_s, self, waiter.met, reserved, claim.taken, claim.now_ns)
            waiter.turn.set_result(ticket)
        if len(model.queue) and self._table.is_shared and not model.is_polled:
            model.is_polled = True
            asyncio.get_running_loop().call_later(_POLL_S, self._poll, model)

    def _poll(self, model: _Model) -> None:
        model.is_polled = False
        self._pump(model)

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = _Model(name)
        return model

    def _meet(self, ask: Ask) -> _Met:
        key, tenant = ask.key, ask.tenant
        name = key.id if key is not None else "", tenant.name, ask.model, ask.slots > 0
        met = self._met.get(name)
        if (
            met is not None
            and met.of_tenant is tenant.limits
            and met.of_model is ask.model_limits
            and (key is None or met.of_key is key.limits)
        ):
            return met
        if len(self._met) >= _MOST_PARTIES:
            self._met.clear()
        met = self._met[name] = self._new(ask)
        return met

    def _new(self, ask: Ask) -> _Met:
        limits = ask.key.limits if ask.key else _FREE, ask.tenant.limits, ask.model_limits
        owners: tuple[Owner, Owner, Owner] = "key", "tenant", "model"
        names = ask.key.id if ask.key else "", ask.tenant.name, ask.model
        is_bounded = ask.slots > 0
        lines = tuple(
            Line(self._table, owner, name, limit)
            for owner, name, limit in zip(owners, names, limits, strict=True)
            if limit != _FREE or (owner == "model" and is_bounded)
        )
        party = Party(self._table, lines, is_bounded)
        return _Met(*limits, party, self._model(ask.model))
