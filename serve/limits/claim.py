"""What one request claims of its key, its tenant and its model: every step is one critical section
over all of their rows, so that it happens in all of them or in none.
"""

from serve.errors import QueueFull, RateLimited, RequestError, TooLongForLimit
from serve.limits.line import Line, Marks
from serve.limits.rates import Counts, Moment, Row, Terms, too_small, waits
from serve.limits.table import Table

_TRIES = 8  # to find rows that do not drive out each other


class Claim:
    """`lines`: of those who have limits. `model_line`: the one whose slots are shared, which is the
    last of them; None if as many as come may be in. `tokens`, `nanos`: to reserve."""

    __slots__ = ("_lines", "_model_line", "_nanos", "_table", "_tokens", "marks", "now_ns")

    def __init__(
        self,
        table: Table,
        lines: tuple[Line, ...],
        model_line: Line | None,
        tokens: int,
        nanos: int,
    ) -> None:
        self._table, self._lines, self._model_line = table, lines, model_line
        self._tokens, self._nanos = tokens, nanos
        self.marks: list[Marks] = []
        self.now_ns = 0  # when it was let in

    def enter(self, slots: int, usual_s: float) -> bool:
        """In at once; False if somebody waits already, or all slots are taken. RateLimited,
        TooLongForLimit."""
        table, tokens, nanos, marks = self._table, self._tokens, self._nanos, self.marks
        self.now_ns = now_ns = table.tick()
        table.lock()
        try:
            rows = self._look(now_ns, usual_s)
            if self._model_line is not None and (rows[-1][7] or rows[-1][3] >= slots):
                return False
            for line, row in zip(self._lines, rows):  # noqa: B905  # there is one for each
                marks.append(line.take(row, tokens, nanos, now_ns))
        finally:
            table.unlock()
        return True

    def wait(self, most_waiting: int, usual_s: float) -> bool:
        """Into the queue; False if `most_waiting` are in it. RateLimited, TooLongForLimit."""
        now_ns = self._table.tick()
        with self._table.changing():
            rows = self._look(now_ns, usual_s)
            if rows[-1][7] >= most_waiting:
                return False
            for line, row in zip(self._lines, rows, strict=True):
                line.wait(row, self._tokens, self._nanos)
        return True

    def let_in(self, slots: int) -> bool:
        """From the queue to an engine; False if all slots are taken (0: there are always more).
        The limits are not asked again: what they granted has been held since."""
        self.now_ns = now_ns = self._table.tick()
        with self._table.changing():
            if slots and self._model_line is not None:
                row = self._model_line.read()
                if row[3] - row[7] >= slots:
                    return False
            self.marks = [line.let_in(self._tokens, now_ns) for line in self._lines]
        return True

    def leave(self) -> None:
        """Out of the queue, and away."""
        with self._table.changing():
            for line in self._lines:
                line.leave(self._tokens, self._nanos)

    def take_back(self) -> None:
        """Let in, but the client had gone before it knew."""
        now_ns = self._table.tick()
        with self._table.changing():
            for line, marks in zip(self._lines, self.marks, strict=True):
                line.take_back(self._tokens, self._nanos, marks, now_ns)

    def settle(self, tokens: int, nanos: int) -> float:
        """Over, after so many seconds."""
        table = self._table
        reserved, used = (self._tokens, self._nanos), (tokens, nanos)
        now_ns = table.tick()
        table.lock()
        try:
            for line, marks in zip(self._lines, self.marks):  # noqa: B905  # there is one for each
                line.settle(reserved, used, marks, now_ns)
        finally:
            table.unlock()
        return (now_ns - self.now_ns) / 10**9

    def levels(self) -> list[tuple[Terms, Row]]:
        """As they are now, perhaps in the middle of somebody's change: the rows' beginnings, of
        those with limits per minute."""
        return [(line.terms, line.levels()) for line in self._lines if line.terms.has_minutes]

    def _look(self, now_ns: int, usual_s: float) -> list[Row]:
        """The rows, if all limits hold. RateLimited, TooLongForLimit."""
        table, tokens, nanos = self._table, self._tokens, self._nanos
        rows, n_made = [], table.n_made
        for line in self._lines:
            row = line.look(tokens, nanos, now_ns)
            if row is None:
                raise self._refusal(self._read(), now_ns, usual_s)
            rows.append(row)
        return rows if table.n_made == n_made else self._read()

    def _read(self) -> list[Row]:
        """A row for each line. To make one may take away another that was read already."""
        table = self._table
        for _ in range(_TRIES):
            n_made = table.n_made
            rows = [line.read() for line in self._lines]
            if table.n_made == n_made:
                return rows
        raise QueueFull(self._lines[-1].name, 1.0)

    def _refusal(self, rows: list[Row], now_ns: int, usual_s: float) -> RequestError:
        """The limit that takes the longest to let the request in."""
        moment = Moment(now_ns, self._table.clock.time(), usual_s)
        refusing: list[tuple[float, str, Line]] = []
        for line, row in zip(self._lines, rows, strict=True):
            if never := too_small(line.terms, self._tokens, self._nanos):
                return TooLongForLimit(line.owner, *never)
            found = waits(line.terms, Counts._make(row), self._tokens, self._nanos, moment)
            refusing += [(wait_s, what, line) for wait_s, what in found]
        wait_s, what, line = max(refusing, key=lambda one: one[0])
        return RateLimited(line.owner, what, getattr(line.terms.limits, what), wait_s)
