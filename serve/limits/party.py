"""Those whose limits a request meets, its key, its tenant and its model, as one: the way through
all of their rows that most requests take. It is as short as it can be, and certain: whatever is
not plain (a limit is close, somebody waits, a row was given away, a day has ended) is left to
`claim`, which does the same in the plain arithmetic of `rates`. That both write the same is tested.
"""

import operator
from collections.abc import Callable, Sequence
from itertools import repeat

from serve.limits.headers import Headers, headers_of
from serve.limits.layout import (
    ALL_HELD,
    GENERATION,
    HELD,
    LEVELS,
    LOOK,
    OF_HELD,
    OF_REQUEST_TAT,
    OF_TOKEN_TAT,
    OWING,
    POURED,
    SETTLED,
    TAKEN,
)
from serve.limits.line import Line
from serve.limits.rates import MINUTE_NS, Counts
from serve.limits.table import Table

_look, _owing = LOOK.unpack_from, OWING.unpack_from
_held, _levels = HELD.unpack_from, LEVELS.unpack_from
_pack_taken, _pack_settled, _pack_held = TAKEN.pack, SETTLED.pack, HELD.pack
_poured, _OF_POURED = POURED.unpack_from, OF_TOKEN_TAT - OF_REQUEST_TAT

# Of each row, what was written when a request was let in (`layout.TAKEN`).
Taken = list[bytes]
Amounts = tuple[int, int]  # tokens, nanos


class Party:
    """`lines`: of those who have limits. `is_bounded`: the last one is the model's, whose slots are
    shared; otherwise as many as come may be in."""

    __slots__ = (
        "_at_rest",
        "_bytes",
        "_generation",
        "_held",
        "_held_at",
        "_levels",
        "_taken",
        "_terms",
        "_write",
        "is_bounded",
        "lines",
        "table",
    )

    def __init__(self, table: Table, lines: tuple[Line, ...], is_bounded: bool) -> None:
        self.table, self.lines, self.is_bounded = table, lines, is_bounded
        self._bytes = table.bytes
        self._write: Callable[[slice, bytes], None] = table.bytes.__setitem__
        self._generation = b""  # none: nothing is known yet
        self._held_at, self._held = 0, slice(0)
        self._taken: list[slice] = []
        self._levels: list[int] = []
        self._terms = [line.terms for line in lines if line.terms.has_minutes]
        self._at_rest = headers_of([(terms, (0, 0, 0, 0)) for terms in self._terms], 0)

    def know(self, counts: Sequence[Counts]) -> None:
        """The rows have just been read: where they are, and when their budgets end; what we hold of
        them is noted from now on. QueueFull. Inside a critical section, as what follows."""
        if self._bytes[GENERATION] == self._generation:
            return
        for line, row in zip(self.lines, counts, strict=True):
            line.know(row)
        rows = tuple(line.at for line in self.lines)
        self._held_at = at = self.table.entry(rows, self.lines[-1].name) + OF_HELD
        self._held = slice(at, at + HELD.size)
        self._taken = [line.taken for line in self.lines]
        self._levels = [line.look_at for line in self.lines if line.terms.has_minutes]
        self._generation = self._bytes[GENERATION]

    def enter(self, tokens: int, nanos: int, slots: int, now_ns: int) -> Taken | None:
        """In, if there is plainly room; None if one has to look closer. All limits are checked
        before anything is written."""
        content = self._bytes
        if content[GENERATION] != self._generation:
            return None
        taken: Taken = []
        full_ns, owed, in_flight = now_ns + MINUTE_NS, -tokens, 0
        for line in self.lines:
            waiting, request_tat, token_tat, back, in_flight, sum_tokens, sum_nanos = _look(
                content, line.look_at
            )
            request_tat = (request_tat if request_tat > now_ns else now_ns) + line.request_ns
            token_tat = token_tat if token_tat > now_ns else now_ns
            token_tat -= owed * line.minute_ns // line.per_tokens  # rounded up
            sum_tokens += tokens
            sum_nanos += nanos
            if (
                waiting
                or in_flight >= line.concurrency
                or request_tat > full_ns
                or token_tat > full_ns
                or sum_tokens > line.most_tokens
                or sum_nanos > line.most_nanos
            ):
                return None
            taken.append(
                _pack_taken(
                    request_tat, token_tat, back, now_ns, in_flight + 1, sum_tokens, sum_nanos
                )
            )
        if slots and in_flight >= slots:
            return None
        list(map(self._write, self._taken, taken))
        n_held, held_tokens, held_nanos = _held(content, self._held_at)
        content[self._held] = _pack_held(n_held + 1, held_tokens + tokens, held_nanos + nanos)
        return taken

    def settle(self, reserved: Amounts, used: Amounts, taken: Taken, now_ns: int) -> bool:
        """Over: charge what was used, and give back what was reserved beyond it. False if one has
        to look closer."""
        content = self._bytes
        (tokens, nanos), (used_tokens, used_nanos) = reserved, used
        n_held, held_tokens, held_nanos = _held(content, self._held_at)
        if n_held <= 0 or content[GENERATION] != self._generation:
            return False
        more_tokens, more_nanos = used_tokens - tokens, used_nanos - nanos
        for line, then in zip(self.lines, taken):  # noqa: B905  # there is one for each
            token_tat, back, in_flight, sum_tokens, sum_nanos, day_tokens, day_nanos = _owing(
                content, line.owing_at
            )
            if more_tokens > 0:
                if token_tat < now_ns:
                    token_tat = now_ns
                token_tat -= -more_tokens * line.minute_ns // line.per_tokens
            elif token_tat > now_ns:  # not all has leaked
                unused_ns = _unused_ns(line, -more_tokens, then, back, now_ns)
                token_tat -= unused_ns
                back += unused_ns
            content[line.settled] = _pack_settled(
                token_tat,
                back,
                now_ns,
                in_flight - 1,
                sum_tokens + more_tokens,
                sum_nanos + more_nanos,
                day_tokens + used_tokens,
                day_nanos + used_nanos,
            )
        content[self._held] = _pack_held(n_held - 1, held_tokens - tokens, held_nanos - nanos)
        return True

    def headers(self) -> Headers:
        """Of the limits per minute, as they are now, perhaps in the middle of somebody's change."""
        now_ns, content = self.table.clock.monotonic_ns(), self._bytes
        if content[GENERATION] != self._generation:
            return headers_of([(line.terms, line.levels()) for line in self.lines], now_ns)
        for at in self._levels:
            waiting, _, request_tat, token_tat = _levels(content, at)
            if waiting or request_tat > now_ns or token_tat > now_ns:
                break
        else:
            return self._at_rest.copy()
        levels = map(_levels, repeat(content), self._levels)
        return headers_of(zip(self._terms, levels, strict=True), now_ns)

    # What follows is for those who look closer.

    def held(self) -> tuple[int, ...]:
        """What we hold, as `hold` changes it. The first is 0 after `Table.clear_slot` for a process
        that was not dead after all."""
        return ALL_HELD.unpack_from(self._bytes, self._held_at)

    def hold(self, *change: int) -> None:
        """So much more in flight, tokens, nanos, waiting, waiting tokens."""
        changed = map(operator.add, self.held(), change)
        ALL_HELD.pack_into(self._bytes, self._held_at, *changed)


def _unused_ns(line: Line, tokens: int, then: bytes, back: int, now_ns: int) -> int:
    """As `rates.refund_ns`."""
    then_tat, then_back = _poured(then, _OF_POURED)
    left_ns: int = then_tat + then_back - back - now_ns
    return max(0, min(left_ns, -(-tokens * line.minute_ns // line.per_tokens)))


def mark_of(then: bytes) -> int:
    """Of the tokens' bucket, what `rates.refund_ns` wants to know; `then`: of `Taken`."""
    token_tat: int
    token_back: int
    token_tat, token_back = _poured(then, _OF_POURED)
    return token_tat + token_back
