"""What is written down of each request, exactly once: before its client hears the end of it."""

import time
from collections import defaultdict
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
        self._estimates: defaultdict[str, Estimate] = defaultdict(Estimate)
        self._second, self._refusals = 0, 0

    def estimate(self, model: str) -> Estimate:
        """What is usual for a model. `model`: a served one's name."""
        return self._estimates[model]

    def begin(self, call: Call) -> None:
        """The request is about to be sent to an engine. InhouseError if that cannot be noted."""
        model = call.model
        assert model is not None
        caller, journal = call.request.caller, self.journal
        slot = journal.take_slot()
        record = Start(
            call.id,
            call.at,
            caller.key.id if caller.key is not None else "",
            caller.tenant.name,
            model.name,
            call.route.name,
            call.tokens[0],
            slot,
            caller.address if self._audit == "all" else "",
        )
        try:
            journal.start(record)
        except InhouseError:  # the disk is full: what cannot be written down is not begun
            journal.free_slot(slot)
            raise
        call.slot, call.is_begun = slot, True
        self._metrics.begin(model.name)
        if self._traces is not None:
            parent = call.request.headers.get(b"traceparent")
            call.trace = self._traces.begin(call.route.name, call.at, parent)

    def end(self, call: Call, outcome: Outcome) -> None:
        """The request is over: settle what it took, write it down. A second call does nothing."""
        if call.is_settled:
            return
        call.is_settled = True
        usage, is_estimated = self._usage(call, outcome)
        model = call.model
        prompt, output = usage.input or 0, usage.output or 0
        cost = model.price.cost(prompt, usage.cached, output) if model is not None else 0
        if call.lease is not None:
            told = None if is_estimated or not call.route.counts else usage
            call.lease.end(told.input if told else None, told.cached if told else None)
        record = self._record(call, outcome, usage, is_estimated, cost)
        # Nothing between these two: for who is killed there, the limits count a request twice.
        if call.ticket is not None:
            call.ticket.settle(prompt + output, cost)
        if record is None:
            return
        self.journal.end(record)
        self.journal.free_slot(call.slot)
        self._metrics.end(record)
        if call.trace is not None:
            call.trace.end(record)

    def _record(
        self, call: Call, outcome: Outcome, usage: Usage, is_estimated: bool, cost: int
    ) -> End | None:
        """None if its beginning is not in the books."""
        if not call.is_begun or call.model is None:
            return None
        caller = call.request.caller
        return End(
            call.id,
            call.at,
            caller.key.id if caller.key is not None else "",
            caller.tenant.name,
            call.model.name,
            call.route.name,
            call.lease.replica.id if call.lease is not None else "",
            CLIENT_LEFT if outcome == "left" else call.status,
            outcome,
            usage.input or 0,
            usage.cached,
            usage.output or 0,
            usage.reasoning,
            is_estimated,
            call.queue_s,
            call.first_s - call.started_s if call.first_s is not None else None,
            time.perf_counter() - call.started_s,
            cost,
            caller.address if self._audit == "all" else "",
        )

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

    def _usage(self, call: Call, outcome: Outcome) -> tuple[Usage, bool]:
        """What it took, and whether that is estimated: by the events that were passed on."""
        if not call.route.counts or call.notes is None:
            return Usage(0, 0), False
        usage = call.notes.usage()
        if usage is not None and outcome == "ok" and call.model is not None:
            prompt, output = usage.input or 0, usage.output or 0
            self._estimates[call.model.name].learn(call.prompt_bytes, prompt, output)
        if usage is not None and (outcome == "ok" or usage.output):
            return usage, False
        if outcome == "error":
            return Usage(0, 0), False
        prompt = usage.input if usage is not None and usage.input else call.tokens[0]
        cached = usage.cached if usage is not None else 0
        return Usage(prompt, call.notes.events, cached), True

    def _may_note(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._refusals = second, 0
        self._refusals += 1
        return self._refusals <= _MOST_REFUSALS_PER_S
