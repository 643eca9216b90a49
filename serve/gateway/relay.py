"""The way of one request to an engine and of its answer back, byte for byte."""

import asyncio
import logging
import time
from functools import lru_cache

import msgspec

from serve import log
from serve.errors import EngineGone, Forbidden, InhouseError, ModelNotReady, ShuttingDown
from serve.gateway import errors, safety
from serve.gateway.body import read, read_body, read_form
from serve.gateway.books import Books
from serve.gateway.breaker import Breaker, Poison
from serve.gateway.call import Call, ClientLeft
from serve.gateway.config import Config
from serve.gateway.direct import Direct
from serve.gateway.door import may_use
from serve.gateway.exchange import Request as Request  # where other parts look for it
from serve.gateway.routes import Route, find
from serve.gateway.salt import Salts
from serve.gateway.served import DRAIN_RETRY_S, Served
from serve.gateway.upstream import Connection, Pool, host_of
from serve.gateway.waiting import Comments
from serve.limits import Admission, Ask, Ticket
from serve.quota import Priority
from serve.roster import Chooser, Replica, Roster, ServedModel

_logger = logging.getLogger(__name__)

# What an engine is told of a request's head. Never keys, cookies or the client's host.
_FORWARDED = (b"content-type", b"accept", b"anthropic-version", b"anthropic-beta")
_MOST_TRIES = 3
_PRIORITIES: tuple[Priority, ...] = ("interactive", "default", "batch")
_RANKS = {name.encode(): rank for rank, name in enumerate(_PRIORITIES)}


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
        call = await self._read(request, route)
        if call is None:
            return
        if not call.outlet.listen(call):
            return
        try:
            await self._carry(call)
        except ClientLeft:
            self._books.end(call, "left")
        except asyncio.CancelledError:  # the time to drain is over
            self._tell(call, ShuttingDown(DRAIN_RETRY_S), "drained")
        except InhouseError as error:
            self._tell(call, error, "gone" if isinstance(error, EngineGone) else "error")
        finally:
            if call.connection is not None:
                call.connection.abort()
            call.let_go()
            self._books.end(call, "error")  # of ours, if it is not in the books yet
            await call.outlet.close()

    async def _read(self, request: Request, route: Route) -> Call | None:
        """None if the client left before its body was complete."""
        send, most_bytes = request.send, self._config.max_body
        body = send.whole_body(most_bytes) if isinstance(send, Direct) else None
        if body is None:
            length = request.headers.get(b"content-length")
            body = await read_body(request.receive, length, most_bytes)
        if body is None:
            return None
        if route.is_form:
            asked = read_form(body, request.headers.get(b"content-type", b""))
        else:
            asked = read(body)
            safety.check(body, self._config.bounds)
        return Call(request, route, asked, self._books.journal)

    async def _carry(self, call: Call) -> None:
        # No local name for what was asked: it would be held as long as the answer takes.
        if call.asked.is_stream:
            call.comments = self._comments
            self._comments.watch(call, asyncio.get_running_loop().time())
        known = self._served.model(call.asked.model)
        if known is not None and not may_use(call.request.caller.key, known.name, *known.aliases):
            raise Forbidden("model", known.name)
        call.model = model = await self._model(call)
        call.mark = self._poison.check(model.name, call.asked.body)
        call.ticket = await self._ticket(call, model)
        self._prepare(call, model)
        self._books.begin(call)
        connection = await self._try_replicas(call, model)
        if call.has_left:
            raise ClientLeft
        await self._finish(call, model, connection)

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
                    await call.unless_left(self._served.changed(left_s))
                finally:
                    self._books.waiting(error.name, -1)

    async def _ticket(self, call: Call, model: ServedModel) -> Ticket:
        estimate = self._books.estimate(model.name)
        prompt = estimate.input_tokens(len(call.asked.prompt) or len(call.asked.body))
        output = estimate.output_tokens(call.asked, model.context_tokens)
        call.tokens = (prompt, output)
        caller = call.request.caller
        ask = Ask(
            caller.key,
            caller.tenant,
            model.name,
            model.limits,
            prompt + output,
            model.price.cost(prompt, 0, output),
            _priority(call.request),
            sum(replica.slots for replica in model.replicas)
            if all(replica.slots for replica in model.replicas)
            else 0,
            self._config.wait_s,
        )
        ticket = self._admission.try_enter(ask)
        if ticket is None:
            self._books.waiting(model.name, 1)
            try:
                ticket = await call.unless_left(self._admission.enter(ask))
            finally:
                self._books.waiting(model.name, -1)
            call.queue_s = ticket.waited_s
        return ticket

    def _prepare(self, call: Call, model: ServedModel) -> None:
        """What the engine gets instead of what the client sent."""
        asked, request, changes = call.asked, call.request, {}
        name = model.upstream or model.name
        call.adds_cache = request.headers.get(b"x-inhouse-usage") == b"deepseek"
        if call.route.is_form:
            call.body = asked.body
            return
        if asked.model != name:
            changes["model"] = msgspec.json.encode(name)
        call.salt = salt = self._salt(call, model)
        if salt:
            changes["cache_salt"] = b'"%b"' % salt
        if asked.is_stream and call.route.streams_usage and not asked.wants_usage():
            changes["stream_options"] = asked.with_usage()
            call.drops_usage = True
        call.body = asked.rewritten(changes) if changes else asked.body

    def _salt(self, call: Call, model: ServedModel) -> bytes:
        asked = call.asked
        is_ours = not self._served.roster.is_open and model.takes_salt and call.route.takes_salt
        if not is_ours and not asked.salt:
            return b""
        return self._salts.of(call.request.caller.tenant.name, asked.salt)

    async def _try_replicas(self, call: Call, model: ServedModel) -> Connection:
        """The connection on which an answer has come; EngineGone if there is none.

        Another replica is asked only if the one before has not got the request, or has declined
        it: a request that kills an engine must not visit the next.
        """
        now_s = time.monotonic()
        avoid = self._breaker.blocked(now_s)
        for number in range(_MOST_TRIES):
            lease = self._chooser.pick(model, call.asked.prompt, call.salt, avoid)
            if lease is None:
                break
            call.lease, replica = lease, lease.replica
            avoid |= {replica.id}
            call.has_others = (
                len(model.replicas) > 1
                and number + 1 < _MOST_TRIES
                and not avoid.issuperset([other.id for other in model.replicas])
            )
            self._breaker.picked(replica.id, now_s)
            connection = await self._ask(call, replica)
            if call.has_left:
                raise ClientLeft
            if connection is not None and connection.is_headed:
                if not call.is_declined:
                    return connection
                connection.abort()
            else:
                self._note_loss(call, model, replica)
                if connection is not None:
                    self._poison.note_death(call.mark)
                    break
            call.connection = None
            lease.end()
        raise EngineGone(model.name, is_started=False)

    async def _ask(self, call: Call, replica: Replica) -> Connection | None:
        """Send the request and wait for the end of the answer. None: nobody listens there.

        An engine closes idle connections after some seconds, perhaps just now: one that was idle
        and ends without a single byte has not been asked, so a fresh one is.
        """
        head = _head(call, replica)
        connection = self._pool.take(replica.address)
        if connection is None:
            connection = await self._pool.connect(replica.address)
        while connection is not None:
            if call.has_left:
                connection.abort()
                break
            call.ask(connection, head)
            await call.over()
            if connection.is_headed or connection.has_bytes or not connection.is_reused:
                break
            if call.has_left:
                break
            connection = await self._pool.connect(replica.address)
        return connection

    async def _finish(self, call: Call, model: ServedModel, connection: Connection) -> None:
        """The answer has come as far as it does: write it down, and send the last of it."""
        assert call.lease is not None
        if not call.is_complete:
            self._note_loss(call, model, call.lease.replica)
            self._poison.note_death(call.mark)
            raise EngineGone(model.name, is_started=True)
        self._breaker.succeeded(call.lease.replica.id)
        self._poison.note_answer(call.mark)
        call.let_go()
        if connection.is_complete:
            connection.release()
        else:
            connection.abort()
        last = call.last_bytes()
        self._books.end(call, "ok" if call.status < 400 else "error")
        if self._config.commit == "each":
            await self._books.journal.committed()
        if not call.has_left:
            call.outlet.end(last)

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


def _priority(request: Request) -> Priority:
    """The class that the client asks for (`x-inhouse-priority`), as far as its key goes."""
    key = request.caller.key
    most = _PRIORITIES.index(key.priority) if key is not None else 0
    wanted = request.headers.get(b"x-inhouse-priority", b"default")
    if request.priority is not None:
        wanted = request.priority.encode()
    return _PRIORITIES[max(most, _RANKS.get(wanted, 1))]


def _head(call: Call, replica: Replica) -> bytes:
    request = call.request
    lines = [_opening(request.path, replica.address, replica.key)]
    for name in _FORWARDED:
        if (value := request.headers.get(name)) is not None:
            lines.append(b"%b: %b\r\n" % (name, value))
    if call.trace is not None:
        lines.append(b"traceparent: %b\r\n" % call.trace.header)
    lines.append(b"content-length: %d\r\nx-request-id: %b\r\n\r\n" % (len(call.body), request.id))
    return b"".join(lines)


@lru_cache(1024)
def _opening(path: str, address: str, key: str) -> bytes:
    """What is the same in all requests of a route to a replica."""
    line = f"POST {path} HTTP/1.1\r\nhost: {host_of(address)}\r\n"
    return (line + f"authorization: Bearer {key}\r\n" if key else line).encode()
