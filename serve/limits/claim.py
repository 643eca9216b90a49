"""What one request claims of its key, its tenant and its model, where `Party` has to look closer:
every step is one critical section over all of their rows, so that it happens in all of them or in
none.
"""

from serve.errors import QueueFull, RateLimited, RequestError, TooLongForLimit
from serve.limits.line import Line
from serve.limits.party import Amounts, Party, Taken, mark_of
from serve.limits.rates import Counts, Moment, holds, too_small, waits

_TRIES = 8  # to find rows that do not drive out each other


class Claim:
    """`tokens`, `nanos`: to reserve."""

    __slots__ = ("_marks", "_nanos", "_party", "_table", "_tokens", "now_ns", "taken")

    def __init__(self, party: Party, tokens: int, nanos: int) -> None:
        self._party, self._table = party, party.table
        self._tokens, self._nanos = tokens, nanos
        # When it was let in, from the queue or at once.
        self.taken: Taken = []
        self._marks: list[int] = []
        self.now_ns = 0

    def enter(self, slots: int, usual_s: float, now_ns: int) -> bool:
        """In at once; False if somebody waits already, or all slots are taken. RateLimited,
        TooLongForLimit. Inside of a critical section that has begun."""
        party, tokens, nanos = self._party, self._tokens, self._nanos
        rows = self._look(now_ns, usual_s)
        if party.is_bounded and (rows[-1].waiting or rows[-1].in_flight >= slots):
            return False
        party.know(rows)
        both = zip(party.lines, rows, strict=True)
        self.taken = [line.take(row, tokens, nanos, now_ns) for line, row in both]
        party.hold(1, tokens, nanos, 0, 0)
        return True

    def wait(self, most_waiting: int, usual_s: float) -> bool:
        """Into the queue; False if `most_waiting` are in it. RateLimited, TooLongForLimit."""
        party, tokens, nanos = self._party, self._tokens, self._nanos
        now_ns = self._table.tick()
        with self._table.changing():
            rows = self._look(now_ns, usual_s)
            if rows[-1].waiting >= most_waiting:
                return False
            party.know(rows)
            for line, row in zip(party.lines, rows, strict=True):
                line.wait(row, tokens, nanos)
            party.hold(1, tokens, nanos, 1, tokens)
        return True

    def let_in(self, slots: int) -> bool:
        """From the queue to an engine; False if all slots are taken (0: there are always more).
        The limits are not asked again: what they granted has been held since."""
        party, tokens = self._party, self._tokens
        self.now_ns = now_ns = self._table.tick()
        with self._table.changing():
            if slots and party.is_bounded:
                row = party.lines[-1].read()
                if row.in_flight - row.waiting >= slots:
                    return False
            both = zip(party.lines, _known(party), strict=True)
            written = [line.let_in(row, tokens, now_ns) for line, row in both]
            self.taken, self._marks = [taken for taken, _ in written], [mark for _, mark in written]
            party.hold(0, 0, 0, -1, -tokens)
        return True

    def leave(self) -> None:
        """Out of the queue, and away."""
        party, tokens, nanos = self._party, self._tokens, self._nanos
        with self._table.changing():
            rows = _known(party)
            if party.held()[0] <= 0:
                return
            for line, row in zip(party.lines, rows, strict=True):
                line.leave(row, tokens, nanos)
            party.hold(-1, -tokens, -nanos, -1, -tokens)

    def take_back(self) -> None:
        """Let in, but the client had gone before it knew."""
        party, tokens, nanos = self._party, self._tokens, self._nanos
        now_ns = self._table.tick()
        with self._table.changing():
            rows = _known(party)
            is_held = party.held()[0] > 0
            all_four = zip(party.lines, rows, self._marks, self.taken, strict=True)
            for line, row, mark, taken in all_four:
                refunded = line.refund(row, tokens, (mark, mark_of(taken)), now_ns)
                if is_held:
                    line.release(refunded, tokens, nanos)
            if is_held:
                party.hold(-1, -tokens, -nanos, 0, 0)

    def _look(self, now_ns: int, usual_s: float) -> list[Counts]:
        """The rows, if all limits hold. RateLimited, TooLongForLimit."""
        lines, rows = self._party.lines, _rows_of(self._party)
        for line, row in zip(lines, rows, strict=True):
            if not holds(line.terms, row, self._tokens, self._nanos, now_ns):
                raise self._refusal(rows, now_ns, usual_s)
        return rows

    def _refusal(self, rows: list[Counts], now_ns: int, usual_s: float) -> RequestError:
        """The limit that takes the longest to let the request in."""
        moment = Moment(now_ns, self._table.clock.time(), usual_s)
        refusing: list[tuple[float, str, Line]] = []
        for line, row in zip(self._party.lines, rows, strict=True):
            if never := too_small(line.terms, self._tokens, self._nanos):
                return TooLongForLimit(line.owner, *never)
            found = waits(line.terms, row, self._tokens, self._nanos, moment)
            refusing += [(wait_s, what, line) for wait_s, what in found]
        wait_s, what, line = max(refusing, key=lambda one: one[0])
        return RateLimited(line.owner, what, getattr(line.terms.limits, what), wait_s)


def settle(party: Party, reserved: Amounts, used: Amounts, taken: Taken, now_ns: int) -> None:
    """As `Party.settle`, whatever has happened since. In this order: who is killed in between
    leaves no count too low. Inside of a critical section."""
    rows = _known(party)
    is_held = party.held()[0] > 0
    tokens, nanos = reserved
    for line, row, then in zip(party.lines, rows, taken, strict=True):
        charged = line.charge(row, used, used[0] - tokens, mark_of(then), now_ns)
        if is_held:
            line.release(charged, tokens, nanos)
    if is_held:
        party.hold(-1, -tokens, -nanos, 0, 0)


def _known(party: Party) -> list[Counts]:
    """The rows of those of whom we hold something."""
    rows = _rows_of(party)
    party.know(rows)
    return rows


def _rows_of(party: Party) -> list[Counts]:
    """A row for each line. To make one may take away another that was read already."""
    table = party.table
    for _ in range(_TRIES):
        n_made = table.n_made
        rows = [line.read() for line in party.lines]
        if table.n_made == n_made:
            return rows
    raise QueueFull(party.lines[-1].name, 1.0)
