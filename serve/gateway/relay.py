"""The way of one request to an engine and of its answer back, byte for byte."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from serve import log
from serve.errors import EngineGone, Forbidden, InhouseError, ModelNotReady, ShuttingDown
from serve.gateway import errors, safety
from serve.gateway.body import read, read_body, read_form
from serve.gateway.books import Books
from serve.gateway.breaker import Breaker, Poison
from serve.gateway.call import Call, Lease
from serve.gateway.config import Config
from serve.gateway.door import may_use
from serve.gateway.exchange import Request as Request  # where other parts look for it
from serve.gateway.heads import head
from serve.gateway.pool import Pool
from serve.gateway.preparing import ask_for, prepare
from serve.gateway.routes import Route, find
from serve.gateway.salt import Salts
from serve.gateway.served import DRAIN_RETRY_S, Served
from serve.gateway.upstream import Connection
from serve.gateway.waiting import Comments
from serve.limits import Admission, Ask
from serve.roster import Chooser, Replica, Roster, ServedModel

_logger = logging.getLogger(__name__)
T = TypeVar("T")

_MOST_TRIES = 3


class Relay:
    """Carries requests to engines. One per gateway process."""

    def __init__(
        self, config: Config, served: Served, pool: Pool, books: Books, admission: Admission,
        salts: Salts,
    ) -> None:  # fmt: skip
        self._config = config
        self._served = served
        self._pool = pool
        self._books = books
        self._admission = admission
        self._salts = salts
        self._comments = Comments(config.first_comment_s, config.next_comment_s)
        self._chooser = Chooser()
        self._breaker = Breaker()
        self._poison = Poison()
        served.listen(self._learn)

    def _learn(self, roster: Roster) -> None:
        self._chooser.update(roster)
        replicas = [replica.id for model in roster.models for replica in model.replicas]
        self._breaker.forget(frozenset(replicas))

    async def carry(self, request: Request) -> None:
        """The same for a request that another part of ours makes."""
        await self(request, find(request.path.encode()))

    async def __call__(self, request: Request, route: Route) -> None:
        """Answer one request. An InhouseError only for a body that cannot be read; what goes wrong
        later is told here."""
        length = request.headers.get(b"content-length")
        body = await read_body(request.receive, length, self._config.max_body)
        if body is None:
            return
        call = self._read(request, route, body)
        call.closed = asyncio.get_running_loop().create_future()
        self._begin(call)
        try:
            await call.closed
        except asyncio.CancelledError:
            self._drain(call)
        await call.outlet.close()

    def begin(self, request: Request, route: Route, body: bytes) -> None:
        """The same for who need not know when it is over."""
        self._begin(self._read(request, route, body))

    def _read(self, request: Request, route: Route, body: bytes) -> Call:
        if route.is_form:
            asked = read_form(body, request.headers.get(b"content-type", b""))
        else:
            asked = read(body)
            safety.check_asked(asked, self._config.bounds)
        return Call(request, route, asked, self._books.journal, self._on_over, self._drain)

    # A call goes from step to step without waiting, as far as it can; where it must wait, a task
    # does, and the next step is the end of that.

    def _begin(self, call: Call) -> None:
        if call.outlet.listen(call):
            self._step(call, self._find, None)
        else:
            self._close(call)

    def _on_over(self, call: Call) -> None:
        self._step(call, self._look, None)

    def _drain(self, call: Call) -> None:
        """The time to drain is over."""
        if call.is_closed:
            return
        if call.waiting is not None:
            call.waiting.cancel()
        self._tell(call, ShuttingDown(DRAIN_RETRY_S), "drained")
        self._close(call)

    def _step(self, call: Call, step: Callable[[Call, Any], None], given: Any) -> None:
        """The next step with what it is `given`; what goes wrong in it is told to the client."""
        try:
            step(call, given)
        except InhouseError as error:
            self._tell(call, error, "gone" if isinstance(error, EngineGone) else "error")
            self._close(call)
        except Exception:  # a bug of ours: nobody else is there who would close all this
            self._break_off(call)
            self._close(call)
            raise

    def _wait(
        self, call: Call, work: Coroutine[Any, Any, T], step: Callable[[Call, T], None]
    ) -> None:
        """Go on with `step` and the result of `work`, which is cancelled if the client leaves."""
        call.waiting = task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(partial(self._waited, call, step))

    def _waited(self, call: Call, step: Callable[[Call, T], None], task: asyncio.Task[T]) -> None:
        call.waiting = None
        error = None if task.cancelled() else task.exception()
        if not (task.cancelled() or call.has_left or call.is_closed):
            if error is not None:
                return self._step(call, _fail, error)
            return self._step(call, step, task.result())
        if error is None and not task.cancelled():  # it came too late
            result = task.result()
            if isinstance(result, Connection):
                result.abort()
            elif call.ticket is not None and call.is_closed:
                call.ticket.settle(0, 0)
        if not call.is_closed:
            self._leave(call)

    def _leave(self, call: Call) -> None:
        self._books.end(call, "left")
        self._close(call)

    def _close(self, call: Call) -> None:
        if call.is_closed:
            return
        call.is_closed = True
        if call.connection is not None:
            call.connection.abort()
        call.let_go()
        if not call.is_settled:
            self._books.end(call, "error")  # of ours
        call.outlet.listen(None)
        if call.closed is not None and not call.closed.done():
            call.closed.set_result(None)

    def _find(self, call: Call, _: None) -> None:
        # No local name for what was asked: it would be held as long as the answer takes.
        if call.asked.is_stream:
            call.comments = self._comments
            self._comments.watch(call, asyncio.get_running_loop().time())
        served, key = self._served, call.request.caller.key
        model = served.model(call.asked.model)
        if model is not None:
            is_bound = key is not None and key.models
            if is_bound and not may_use(key, model.name, *model.aliases):
                raise Forbidden("model", model.name)
            if model.replicas and not served.roster.is_draining:
                return self._admit(call, model)
        try:
            model = served.find(call.asked.model)
        except ModelNotReady as error:
            if error.state == "quarantined":
                raise
            return self._wait(call, self._model(call), self._admit)
        self._admit(call, model)

    async def _model(self, call: Call) -> ServedModel:
        """The model, ready; waits for it if it is on its way."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._config.wait_s
        while True:
            try:
                return self._served.find(call.asked.model)
            except ModelNotReady as error:
                left_s = until_s - loop.time()
                if error.state == "quarantined" or left_s <= 0:
                    raise
                self._books.waiting(error.name, 1)
                try:
                    await self._served.changed(left_s)
                finally:
                    self._books.waiting(error.name, -1)

    def _admit(self, call: Call, model: ServedModel) -> None:
        call.model = model
        call.mark = self._poison.check(model.name, call.asked.body)
        estimate, slots = self._books.estimate(model.name), self._served.slots(model)
        ask = ask_for(call, model, estimate, slots, self._config.wait_s)
        call.ticket = self._admission.try_enter(ask)
        if call.ticket is None:
            return self._wait(call, self._queue(call, ask), self._send)
        self._send(call, model)

    async def _queue(self, call: Call, ask: Ask) -> ServedModel:
        """Returns when the call has its ticket."""
        self._books.waiting(ask.model, 1)
        try:
            call.ticket = await self._admission.enter(ask)
        finally:
            self._books.waiting(ask.model, -1)
        call.queue_s = call.ticket.waited_s
        assert call.model is not None
        return call.model

    def _send(self, call: Call, model: ServedModel) -> None:
        prepare(call, model, self._salt(call, model))
        self._books.begin(call)
        call.avoid = self._breaker.blocked(time.monotonic())
        self._try_next(call, model)

    def _salt(self, call: Call, model: ServedModel) -> bytes:
        asked = call.asked
        is_ours = not self._served.roster.is_open and model.takes_salt and call.route.takes_salt
        if not is_ours and not asked.salt:
            return b""
        return self._salts.of(call.request.caller.tenant.name, asked.salt)

    def _try_next(self, call: Call, model: ServedModel) -> None:
        """Ask a replica; EngineGone if there is none left.

        Another replica is asked only if the one before has not got the request, or has declined
        it: a request that kills an engine must not visit the next.
        """
        lease = None
        if call.tries < _MOST_TRIES:
            lease = self._chooser.pick(model, call.asked.prompt, call.salt, call.avoid)
        if lease is None:
            raise EngineGone(model.name, is_started=False)
        call.lease, replica = lease, lease.replica
        call.avoid |= {replica.id}
        call.tries += 1
        call.has_others = call.tries < _MOST_TRIES and _has_others(model, call.avoid)
        self._breaker.picked(replica.id, time.monotonic())
        connection = self._pool.take(replica.address)
        if connection is not None:
            call.ask(connection, head(call, replica))
        else:
            self._connect(call, replica)

    def _connect(self, call: Call, replica: Replica) -> None:
        self._wait(call, self._pool.connect(replica.address), self._connected)

    def _connected(self, call: Call, connection: Connection | None) -> None:
        assert call.lease is not None and call.model is not None
        if connection is not None:
            return call.ask(connection, head(call, call.lease.replica))
        self._note_loss(call, call.model, call.lease.replica)
        call.lease.end()
        self._try_next(call, call.model)

    def _look(self, call: Call, _: None) -> None:
        """The answer has come as far as it does.

        An engine closes idle connections after some seconds, perhaps just now: one that was idle
        and ends without a single byte has not been asked, so a fresh one is.
        """
        connection, model, lease = call.connection, call.model, call.lease
        if call.has_left or connection is None or model is None or lease is None:
            return self._leave(call)
        if connection.is_headed:
            if not call.is_declined:
                return self._finish(call, connection, lease)
            connection.abort()
            call.connection = None
            lease.end()
            return self._try_next(call, model)
        call.connection = None
        if connection.is_reused and not connection.has_bytes:
            return self._connect(call, lease.replica)
        self._note_loss(call, model, lease.replica)
        self._poison.note_death(call.mark)
        raise EngineGone(model.name, is_started=False)

    def _finish(self, call: Call, connection: Connection, lease: Lease) -> None:
        """Write it down, and send the last of it."""
        assert call.model is not None
        if not call.is_complete:
            self._note_loss(call, call.model, lease.replica)
            self._poison.note_death(call.mark)
            raise EngineGone(call.model.name, is_started=True)
        self._breaker.succeeded(lease.replica.id)
        self._poison.note_answer(call.mark)
        call.let_go()
        if connection.is_complete:
            connection.release()
        else:
            connection.abort()
        last = call.last_bytes()
        self._books.end(call, "ok" if call.status < 400 else "error")
        if self._config.commit == "each":
            return self._wait(call, self._written(last), self._end)
        self._end(call, last)

    async def _written(self, last: bytes) -> bytes:
        await self._books.journal.committed()
        return last

    def _end(self, call: Call, last: bytes) -> None:
        call.outlet.end(last)
        self._close(call)

    def _break_off(self, call: Call) -> None:
        content = b"Internal Server Error"
        if call.outlet.is_started:
            return call.outlet.break_off()
        call.outlet.start(500, [(b"content-type", b"text/plain")], b"%d" % len(content))
        call.outlet.end(content)

    def _tell(self, call: Call, error: InhouseError, outcome: str) -> None:
        """Give up without pretending success: by a refusal, if nothing was sent to the client.

        A stream that has begun ends with an error event. Anything else is left incomplete, and
        the connection is closed on which that happens.
        """
        if call.connection is not None:
            call.connection.abort()
        call.let_go()
        path, outlet = call.request.path, call.outlet
        status, headers, content = errors.answer(error, path)
        call.status = status
        if call.is_begun:
            self._books.end(call, outcome)  # type: ignore[arg-type]
        else:
            model = call.model.name if call.model is not None else ""
            code = errors.code(error)
            self._books.refused(call.request, call.route.name, status, code, model)
            self._books.end(call, "refused")
        if not outlet.is_started:
            headers = [row for row in headers if row[0] != b"content-length"]
            headers.append((b"x-request-id", call.request.shown_id))
            outlet.start(status, headers, b"%d" % len(content))
            outlet.end(content)
        elif call.is_stream or call.notes is None:
            cut = b"\n\n" if call.notes is not None and call.notes.ends_in_an_event() else b""
            outlet.end(cut + errors.event(error, path))
        else:
            outlet.break_off()

    def _note_loss(self, call: Call, model: ServedModel, replica: Replica) -> None:
        self._breaker.failed(replica.id, time.monotonic())
        self._books.lost(model.name)
        _logger.warning("engine gone %s", log.fields(model=model.name, replica=replica.id))


def _has_others(model: ServedModel, avoid: frozenset[str]) -> bool:
    """Whether there is a replica that is not to be avoided."""
    replicas = model.replicas
    return len(avoid) < len(replicas) or not avoid.issuperset([other.id for other in replicas])


def _fail(call: Call, error: BaseException) -> None:
    """The step after what went wrong."""
    raise error
