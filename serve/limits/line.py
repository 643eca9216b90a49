"""One owner's row as its limits see it, by the plain arithmetic of `rates`: what is done where a
microsecond does not matter. Everything here happens inside a critical section.
"""

from serve.limits.headers import Levels
from serve.limits.layout import (
    OF_REQUEST_TAT,
    OF_TOKEN_TAT,
    OF_WAITING,
    QUEUED,
    ROW,
    ROW_BYTES,
    SETTLED,
    TAKEN,
    id_of,
)
from serve.limits.rates import Counts, Terms, level_ns, refund_ns, terms_of
from serve.limits.table import Owner, Table
from serve.quota import Limits

_unpack = ROW.unpack_from


class Line:
    """A key's, a tenant's or a model's row, with its limits. What `Party` wants to know of it
    without a look at its terms: where the row's parts are, and when its budgets are used up."""

    __slots__ = (
        "_id",
        "_queued",
        "_table",
        "at",
        "concurrency",
        "look_at",
        "minute_ns",
        "most_nanos",
        "most_tokens",
        "name",
        "owing_at",
        "owner",
        "per_tokens",
        "request_ns",
        "settled",
        "taken",
        "terms",
    )

    def __init__(self, table: Table, owner: Owner, name: str, limits: Limits) -> None:
        self._table, self.owner, self.name = table, owner, name
        self._id = id_of(owner, name)
        self.terms: Terms = terms_of(limits)
        self.concurrency, self.request_ns = self.terms.concurrency, self.terms.request_ns
        self.minute_ns, self.per_tokens = self.terms.minute_ns, self.terms.per_tokens
        self.at = table.layout.row(0)  # anywhere: `read` looks whose row that is
        self.most_tokens = self.most_nanos = 0
        self._find(self.at)

    def _find(self, at: int) -> None:
        self.at, self.look_at, self.owing_at = at, at + OF_WAITING, at + OF_TOKEN_TAT
        self._queued = slice(self.look_at, self.look_at + QUEUED.size)
        self.taken = slice(at + OF_REQUEST_TAT, at + OF_REQUEST_TAT + TAKEN.size)
        self.settled = slice(at + OF_TOKEN_TAT, at + OF_TOKEN_TAT + SETTLED.size)

    def read(self) -> Counts:
        """The row; a new one if it was given away meanwhile. QueueFull if there is none."""
        table = self._table
        counts = Counts._make(_unpack(table.bytes, self.at))
        if counts.id != self._id:
            self._find(table.row(self.owner, self.name))
        elif counts.day >= table.today:
            return counts
        return table.read(self.at)

    def know(self, counts: Counts) -> None:
        """The row as it has just been read."""
        terms = self.terms
        self.most_tokens = min(terms.day_tokens, terms.month_tokens - counts.earlier_tokens)
        self.most_nanos = min(terms.day_nanos, terms.month_nanos - counts.earlier_nanos)

    def levels(self) -> Levels:
        """What `headers_of` wants of the row as it is now, outside of any critical section; of an
        empty one if it was given away."""
        counts = Counts._make(_unpack(self._table.bytes, self.at))
        if counts.id != self._id:
            return 0, 0, 0, 0
        return counts.waiting, counts.waiting_tokens, counts.request_tat, counts.token_tat

    def take(self, counts: Counts, tokens: int, nanos: int, now_ns: int) -> bytes:
        """Let in: pour it into the buckets, and reserve. What was written, as `layout.TAKEN`."""
        self._table.bytes[self.taken] = taken = TAKEN.pack(
            now_ns + level_ns(counts.request_tat, now_ns) + self.request_ns,
            now_ns + level_ns(counts.token_tat, now_ns) + self.terms.token_ns(tokens),
            counts.token_back,
            now_ns,
            counts.in_flight + 1,
            counts.tokens + tokens,
            counts.nanos + nanos,
        )
        return taken

    def wait(self, counts: Counts, tokens: int, nanos: int) -> None:
        """Into the queue: reserve, and pour nothing."""
        self._queue(counts, 1, tokens, nanos)

    def leave(self, counts: Counts, tokens: int, nanos: int) -> None:
        """Out of the queue, and away."""
        self._queue(counts, -1, -tokens, -nanos)

    def _queue(self, counts: Counts, requests: int, tokens: int, nanos: int) -> None:
        self._table.bytes[self._queued] = QUEUED.pack(
            counts.waiting + requests,
            counts.waiting_tokens + tokens,
            counts.request_tat,
            counts.token_tat,
            counts.token_back,
            counts.used_at,
            counts.in_flight + requests,
            counts.tokens + tokens,
            counts.nanos + nanos,
        )

    def let_in(self, counts: Counts, tokens: int, now_ns: int) -> tuple[bytes, int]:
        """Out of the queue: pour what has been reserved. What was written, as `layout.TAKEN`, and
        of the requests' bucket what `rates.refund_ns` wants to know."""
        request_tat = now_ns + level_ns(counts.request_tat, now_ns) + self.request_ns
        self._table.bytes[self._queued] = queued = QUEUED.pack(
            counts.waiting - 1,
            counts.waiting_tokens - tokens,
            request_tat,
            now_ns + level_ns(counts.token_tat, now_ns) + self.terms.token_ns(tokens),
            counts.token_back,
            now_ns,
            counts.in_flight,
            counts.tokens,
            counts.nanos,
        )
        return queued[-TAKEN.size :], request_tat + counts.request_back

    def refund(self, counts: Counts, tokens: int, marks: tuple[int, int], now_ns: int) -> Counts:
        """Let in, but never begun: out of the buckets again. `marks`: of both, see
        `rates.refund_ns`."""
        requests_ns = refund_ns(marks[0], counts.request_back, self.request_ns, now_ns)
        tokens_ns = self._unused_ns(counts, tokens, marks[1], now_ns)
        return self._write(
            counts,
            request_tat=counts.request_tat - requests_ns,
            request_back=counts.request_back + requests_ns,
            token_tat=counts.token_tat - tokens_ns,
            token_back=counts.token_back + tokens_ns,
            used_at=now_ns,
        )

    def release(self, counts: Counts, tokens: int, nanos: int) -> Counts:
        """What was reserved for one who is in is so no more. The row as it is then."""
        return self._write(
            counts,
            in_flight=counts.in_flight - 1,
            tokens=counts.tokens - tokens,
            nanos=counts.nanos - nanos,
        )

    def charge(
        self, counts: Counts, used: tuple[int, int], more: int, mark: int, now_ns: int
    ) -> Counts:
        """Over: charge what was used, as tokens and nanos; `more`: tokens than were poured in, or
        fewer, if it is negative, which are taken out again. `mark`: see `rates.refund_ns`."""
        tokens, nanos = used
        token_tat, back_ns = counts.token_tat, 0
        if more > 0:
            token_tat = now_ns + level_ns(token_tat, now_ns) + self.terms.token_ns(more)
        else:
            back_ns = self._unused_ns(counts, -more, mark, now_ns)
        return self._write(
            counts,
            token_tat=token_tat - back_ns,
            token_back=counts.token_back + back_ns,
            used_at=now_ns,
            tokens=counts.tokens + tokens,
            nanos=counts.nanos + nanos,
            day_tokens=counts.day_tokens + tokens,
            day_nanos=counts.day_nanos + nanos,
        )

    def _unused_ns(self, counts: Counts, tokens: int, mark: int, now_ns: int) -> int:
        return refund_ns(mark, counts.token_back, self.terms.token_ns(tokens), now_ns)

    def _write(self, counts: Counts, **changes: int) -> Counts:
        counts = counts._replace(**changes)
        self._table.bytes[self.at : self.at + ROW_BYTES] = ROW.pack(*counts)
        return counts
