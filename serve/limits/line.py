"""One owner's row as its limits see it. Everything here happens inside a critical section."""

from serve.limits.layout import (
    BACK,
    LEVELS,
    OF_BACK,
    OF_RESERVED,
    OF_TAKEN,
    OF_USED,
    OF_WAITING,
    RESERVED,
    ROW,
    TAKEN,
    USED,
    WAITING,
    id_of,
)
from serve.limits.rates import (
    MINUTE_NS,
    TOKEN_BURST_NS,
    Counts,
    Row,
    Terms,
    refund_ns,
    terms_of,
)
from serve.limits.table import Owner, Table
from serve.quota import Limits

# What `refund_ns` wants to know of the two buckets.
Marks = tuple[int, int]
Amounts = tuple[int, int]  # tokens, nanos

_unpack, _unpack_held = ROW.unpack_from, RESERVED.unpack_from
_pack_taken, _pack_used, _pack_held = TAKEN.pack_into, USED.pack_into, RESERVED.pack_into
_unpack_levels = LEVELS.unpack_from


class Line:
    """A key's, a tenant's or a model's row, with its limits."""

    __slots__ = (
        "_at",
        "_bytes",
        "_held_at",
        "_id",
        "_table",
        "_taken_at",
        "name",
        "owner",
        "terms",
    )

    def __init__(self, table: Table, owner: Owner, name: str, limits: Limits) -> None:
        self._table, self.owner, self.name = table, owner, name
        self._bytes, self._id = table.bytes, id_of(owner, name)
        self.terms: Terms = terms_of(limits)
        self._at = table.layout.row(0)  # anywhere: `read` looks whose row that is
        self._taken_at = self._held_at = 0

    def read(self) -> Row:
        """The row; a new one if it was given away meanwhile. QueueFull if there is none."""
        row = _unpack(self._bytes, self._at)
        if row[0] != self._id:
            table = self._table
            self._at = table.row(self.owner, self.name)
            self._taken_at = self._at + OF_TAKEN
            self._held_at = table.layout.held(table.slot, table.index(self._at))
            row = _unpack(self._bytes, self._at)
        return row if row[9] >= self._table.today else self._table.read(self._at)

    def levels(self) -> Row:
        """The row's beginning, up to who waits: of somebody who is in, so it is his row."""
        row = _unpack_levels(self._bytes, self._at)
        return row if row[0] == self._id else self.read()

    def look(self, tokens: int, nanos: int, now_ns: int) -> Row | None:
        """The row, if every limit holds: if `rates.waits` finds none, in a microsecond."""
        row = _unpack(self._bytes, self._at)
        if row[0] != self._id or row[9] < self._table.today:
            row = self.read()
        terms = self.terms
        if row[3] >= terms.concurrency:
            return None
        if request_ns := terms.request_ns:
            needed_ns = (row[7] + 1) * request_ns
            if row[1] > now_ns:
                needed_ns += row[1] - now_ns
            if needed_ns > terms.request_burst_ns:
                return None
        if tpm := terms.tpm:
            needed_ns = -(-(row[8] + tokens) * MINUTE_NS // tpm)
            if row[2] > now_ns:
                needed_ns += row[2] - now_ns
            if needed_ns > TOKEN_BURST_NS:
                return None
        if terms.has_budget:
            tokens += row[4]
            nanos += row[5]
            if (
                row[10] + tokens > terms.day_tokens
                or row[13] + tokens > terms.month_tokens
                or row[11] + nanos > terms.day_nanos
                or row[14] + nanos > terms.month_nanos
            ):
                return None
        return row

    def take(self, row: Row, tokens: int, nanos: int, now_ns: int) -> Marks:
        """Let in: pour it into the buckets, and reserve."""
        terms, content = self.terms, self._bytes
        request_tat = (row[1] if row[1] > now_ns else now_ns) + terms.request_ns
        token_tat = row[2] if row[2] > now_ns else now_ns
        if tpm := terms.tpm:
            token_tat += -(-tokens * MINUTE_NS // tpm)
        reserved_tokens, reserved_nanos = row[4] + tokens, row[5] + nanos
        _pack_taken(
            content,
            self._taken_at,
            request_tat,
            token_tat,
            row[3] + 1,
            reserved_tokens,
            reserved_nanos,
            now_ns,
        )
        held = _unpack_held(content, self._held_at)
        _pack_held(content, self._held_at, held[0] + 1, held[1] + tokens, held[2] + nanos)
        return request_tat + row[15], token_tat + row[16]

    def wait(self, row: Row, tokens: int, nanos: int) -> None:
        """Into the queue: reserve, and pour nothing."""
        self._hold(row, 1, tokens, nanos)
        self._wait(1, tokens)

    def let_in(self, tokens: int, now_ns: int) -> Marks:
        """Out of the queue: pour what has been reserved."""
        counts = Counts._make(self.read())
        self._wait(-1, -tokens)
        request_tat = max(counts.request_tat, now_ns) + self.terms.request_ns
        token_tat = max(counts.token_tat, now_ns) + self.terms.token_ns(tokens)
        self._pour(counts, request_tat, token_tat, now_ns)
        return request_tat + counts.request_back, token_tat + counts.token_back

    def leave(self, tokens: int, nanos: int) -> None:
        """Out of the queue, and away."""
        row = self.read()
        if self._is_held():
            self._wait(-1, -tokens)
            self._hold(row, -1, -tokens, -nanos)

    def take_back(self, tokens: int, nanos: int, marks: Marks, now_ns: int) -> None:
        """Let in, but never begun."""
        row = self.read()
        if self._is_held():
            self._hold(row, -1, -tokens, -nanos)
        counts = Counts._make(self.read())
        back_ns = refund_ns(marks[0], counts.request_back, self.terms.request_ns, now_ns)
        self._refund(counts, back_ns, self._token_refund_ns(counts, tokens, marks, now_ns), now_ns)

    def settle(self, reserved: Amounts, used: Amounts, marks: Marks, now_ns: int) -> None:
        """Over: charge what was used, give back what was reserved beyond it. In this order: who is
        killed in between leaves no count too low."""
        terms, content = self.terms, self._bytes
        row = _unpack(content, self._at)
        if row[0] != self._id or row[9] < self._table.today:
            row = self.read()
        (tokens, nanos), (used_tokens, used_nanos) = reserved, used
        in_flight, token_tat, more = row[3], row[2], used_tokens - tokens
        if terms.tpm:
            if more > 0:
                token_tat = max(token_tat, now_ns) + terms.token_ns(more)
            elif more:
                unused_ns = refund_ns(marks[1], row[16], terms.token_ns(-more), now_ns)
                if unused_ns:
                    token_tat -= unused_ns
                    back = row[15], row[16] + unused_ns
                    BACK.pack_into(content, self._at + OF_BACK, *back)
        _pack_used(
            content,
            self._at + OF_USED,
            row[9],
            row[10] + used_tokens,
            row[11] + used_nanos,
            row[12],
            row[13] + used_tokens,
            row[14] + used_nanos,
        )
        held = _unpack_held(content, self._held_at)
        if held[0] > 0:  # not so after `clear_slot` for a process that was not dead after all
            in_flight -= 1
            _pack_held(content, self._held_at, held[0] - 1, held[1] - tokens, held[2] - nanos)
        else:
            tokens = nanos = 0
        _pack_taken(
            content,
            self._taken_at,
            row[1],
            token_tat,
            in_flight,
            row[4] - tokens,
            row[5] - nanos,
            now_ns,
        )

    def _token_refund_ns(self, counts: Counts, tokens: int, marks: Marks, now_ns: int) -> int:
        return refund_ns(marks[1], counts.token_back, self.terms.token_ns(tokens), now_ns)

    def _refund(self, counts: Counts, requests_ns: int, tokens_ns: int, now_ns: int) -> None:
        back = counts.request_back + requests_ns, counts.token_back + tokens_ns
        BACK.pack_into(self._bytes, self._at + OF_BACK, *back)
        tats = counts.request_tat - requests_ns, counts.token_tat - tokens_ns
        self._pour(counts, *tats, now_ns)

    def _pour(self, counts: Counts, request_tat: int, token_tat: int, now_ns: int) -> None:
        kept = counts.in_flight, counts.reserved_tokens, counts.reserved_nanos
        _pack_taken(self._bytes, self._taken_at, request_tat, token_tat, *kept, now_ns)

    def _is_held(self) -> bool:
        """False after `clear_slot` for a process that was not dead after all."""
        return bool(_unpack_held(self._bytes, self._held_at)[0] > 0)

    def _hold(self, row: Row, requests: int, tokens: int, nanos: int) -> None:
        reserved = row[3] + requests, row[4] + tokens, row[5] + nanos
        _pack_held(self._bytes, self._at + OF_RESERVED, *reserved)
        held = _unpack_held(self._bytes, self._held_at)
        mine = held[0] + requests, held[1] + tokens, held[2] + nanos
        _pack_held(self._bytes, self._held_at, *mine)

    def _wait(self, requests: int, tokens: int) -> None:
        for at in (self._at + OF_WAITING, self._held_at + RESERVED.size):
            waiting = WAITING.unpack_from(self._bytes, at)
            WAITING.pack_into(self._bytes, at, waiting[0] + requests, waiting[1] + tokens)
