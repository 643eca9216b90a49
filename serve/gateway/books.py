"""What is written down of each request, exactly once: before its client hears the end of it."""

import time
from collections import defaultdict
from time import perf_counter
from typing import Literal, Protocol

from serve.errors import InhouseError
from serve.gateway.call import Call, Trace
from serve.gateway.estimate import Estimate
from serve.gateway.exchange import Request
from serve.gateway.metrics import CLIENT_LEFT, Metrics
from serve.gateway.usage import Usage
from serve.journal import End, Journal, Refusal, Start

Outcome = Literal["ok", "error", "left", "gone", "drained", "refused"]  # of `End`

# Refusals that somebody may want to know of; that a body was no JSON is not among them.
_AUDITED = frozenset((401, 403, 422, 429))
_NOTHING = Usage()
_MOST_REFUSALS_PER_S = 200  # of all strangers together: nobody fills a disk by knocking


class Tracing(Protocol):
    """`traces.Traces`, which is imported only where it is wanted."""

    def begin(self, route: str, at: float, traceparent: bytes | None) -> Trace | None: ...

    def close(self) -> None: ...


class Books:
    """Journal, metrics, and what is usual for each model. One per gateway process."""

    def __init__(
        self, journal: Journal, metrics: Metrics, audit: str, traces: Tracing | None = None
    ) -> None:
        self.journal = journal
        self._traces = traces
        self._metrics = metrics
        self._audit = audit
        self._notes_addresses = audit == "all"
        self._estimates: defaultdict[str, Estimate] = defaultdict(Estimate)
        self._second, self._refusals = 0, 0

    def estimate(self, model: str) -> Estimate:
        """What is usual for a model. `model`: a served one's name."""
        return self._estimates[model]

    def begin(self, call: Call) -> None:
        """The request is about to be sent to an engine. InhouseError if that cannot be noted."""
        request, model, journal = call.request, call.model, self.journal
        assert model is not None
        caller, name = request.caller, model.name
        key = caller.key
        slot = journal.take_slot()
        record = Start(
            call.id,
            call.at,
            key.id if key is not None else "",
            caller.tenant.name,
            name,
            call.route.name,
            call.tokens[0],
            slot,
            caller.address if self._notes_addresses else "",
        )
        try:
            journal.start(record)
        except InhouseError:  # the disk is full: what cannot be written down is not begun
            journal.free_slot(slot)
            raise
        call.slot = slot
        call.is_begun = True
        self._metrics.begin(name)
        if self._traces is not None:
            parent = request.headers.get(b"traceparent")
            call.trace = self._traces.begin(call.route.name, call.at, parent)

    def end(self, call: Call, outcome: Outcome) -> None:
        """The request is over: settle what it took, write it down. A second call does nothing."""
        if call.is_settled:
            return
        call.is_settled = True
        model, lease, ticket = call.model, call.lease, call.ticket
        if model is None or not call.is_begun:  # nothing was sent
            if ticket is not None:
                ticket.settle(0, 0)
            return
        route, notes = call.route, call.notes
        is_estimated = False
        if notes is None or not route.counts:
            usage = _NOTHING
        else:
            told = notes.usage()
            if told is None or outcome != "ok":
                usage, is_estimated = _usage_of_a_part(call, outcome, told, notes.events)
            else:
                usage = told
                estimate = self._estimates[model.name]
                estimate.learn(call.prompt_bytes, usage.input, usage.output)
        prompt, cached, output = usage.input, usage.cached, usage.output
        cost = model.price.cost(prompt, cached, output)
        replica = ""
        if lease is not None:
            replica = lease.replica.id
            if is_estimated:
                lease.end()
            else:
                lease.end(prompt, cached)
        caller, started_s, first_s = call.request.caller, call.started_s, call.first_s
        key = caller.key
        record = End(
            call.id, call.at, key.id if key is not None else "", caller.tenant.name, model.name,
            route.name, replica, CLIENT_LEFT if outcome == "left" else call.status, outcome,
            prompt, cached, output, usage.reasoning, is_estimated,
            call.queue_s, first_s - started_s if first_s is not None else None,
            perf_counter() - started_s, cost, caller.address if self._notes_addresses else "",
        )  # fmt: skip
        # Nothing between these two: for who is killed there, the limits count a request twice.
        if ticket is not None:
            ticket.settle(prompt + output, cost)
        journal = self.journal
        journal.end(record)
        journal.free_slot(call.slot)
        self._metrics.end(record)
        if call.trace is not None:
            call.trace.end(record)

    def lost(self, model: str) -> None:
        """An engine of this model could not be reached, or broke off."""
        self._metrics.upstream_lost(model)

    def waiting(self, model: str, change: int) -> None:
        """So many more (or fewer) requests wait for their turn, or for this model."""
        self._metrics.waiting(model, change)

    def refused(
        self, request: Request, route: str, status: int, code: str, model: str = ""
    ) -> None:
        """A request was refused before an engine was asked."""
        self._metrics.refused(route, status, code, model)
        if status not in _AUDITED or self._audit == "admin" or not self._may_note():
            return
        caller = request.caller
        key = caller.key.id if caller.key is not None else ""
        at, id = time.time(), request.id.decode()
        self.journal.refuse(
            Refusal(id, at, key, caller.tenant.name, route, status, code, caller.address)
        )

    def _may_note(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._refusals = second, 0
        self._refusals += 1
        return self._refusals <= _MOST_REFUSALS_PER_S


def _usage_of_a_part(
    call: Call, outcome: Outcome, told: Usage | None, events: int
) -> tuple[Usage, bool]:
    """What an answer took that is not complete, or whose engine did not say; and whether that is
    estimated: by the events that were passed on."""
    if told is not None and told.output:
        return told, False
    if outcome == "error":
        return _NOTHING, False
    if told is None:
        return Usage(call.tokens[0], events), True
    return Usage(told.input or call.tokens[0], events, told.cached), True
