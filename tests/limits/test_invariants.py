"""Random schedules on a clock that is set by hand, beside plain books of what was let in."""

import struct
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serve.errors import RateLimited, TooLongForLimit
from serve.limits import Admission, Table, Ticket
from serve.limits.layout import ENTRY, ROW
from serve.limits.rates import Counts
from serve.quota import Limits
from tests.limits.asking import ask
from tests.limits.clocks import HandClock

KEYS = {
    "narrow": Limits(rpm=5, tpm=300, concurrency=2),
    "daily": Limits(tokens_per_day=1000, nanos_per_month=5000),
    "free": Limits(),
}
TENANT = Limits(rpm=11, tpm=700, concurrency=4, tokens_per_month=5000)
MODEL = Limits(concurrency=5, nanos_per_day=4000)


@dataclass
class Entry:
    """One request in the plain books."""

    key: str
    at_ns: int
    day: int
    reserved: tuple[int, int]
    ticket: Ticket
    used: tuple[int, int] | None = None

    def taken(self, what: int) -> int:
        """Tokens (0) or nanos (1), the part that a reservation covers."""
        return (
            self.reserved[what] if self.used is None else min(self.used[what], self.reserved[what])
        )


class Books(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.clock.go(43200 - 300)  # midnight is near
        self.table = Table(None, clock=self.clock)
        self.admission = Admission(self.table, 10)
        self.entries: list[Entry] = []
        self.latest_day, self.has_all_days = self.day(), True

    def day(self) -> int:
        return int(self.clock.time() // 86400)

    def amounts(self) -> tuple[list[Counts], list[tuple[int, ...]]]:
        """All rows, whenever they were used, and all that is held of them."""
        layout, content = self.table.layout, self.table.bytes
        begin, end = layout.row(0), layout.row(layout.rows)
        rows = map(Counts._make, ROW.iter_unpack(content[begin:end]))
        (n_entries,) = struct.unpack_from("q", content, layout.slot(0))
        entries = content[layout.entry(0, 0) : layout.entry(0, n_entries)]
        held = [entry for entry in ENTRY.iter_unpack(entries) if any(entry[3:])]
        return [row._replace(used_at=0) for row in rows if row.id], held

    @rule(key=st.sampled_from(sorted(KEYS)), tokens=st.integers(0, 320), nanos=st.integers(0, 900))
    def ask(self, key: str, tokens: int, nanos: int) -> None:
        asked = ask(
            tokens, nanos, key=key, of_key=KEYS[key], of_tenant=TENANT, of_model=MODEL, slots=100
        )
        rows, before = self.table.n_made, self.amounts()
        try:
            ticket = self.admission.try_enter(asked)
        except (RateLimited, TooLongForLimit) as refusal:
            assert getattr(refusal, "retry_after_s", 1) > 0
            # Nothing may have changed, but for rows that are new, or a day that has ended; and when
            # a row was last looked for.
            if self.table.n_made == rows and self.has_all_days:
                assert self.amounts() == before
            return
        assert ticket is not None
        entry = Entry(key, self.clock.now_ns, self.latest_day, (tokens, nanos), ticket)
        self.entries.append(entry)

    @precondition(lambda self: any(entry.used is None for entry in self.entries))
    @rule(pick=st.integers(0, 100), tokens=st.integers(0, 400), nanos=st.integers(0, 1000))
    def settle(self, pick: int, tokens: int, nanos: int) -> None:
        running = [entry for entry in self.entries if entry.used is None]
        entry = running[pick % len(running)]
        entry.ticket.settle(tokens, nanos)
        entry.used = tokens, nanos
        before = bytes(self.table.bytes)
        entry.ticket.settle(tokens, nanos)
        assert bytes(self.table.bytes) == before

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.5, 3.0, 20.0, 61.0, 400.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.go(seconds)
        self.has_all_days &= self.day() <= self.latest_day
        self.latest_day = max(self.latest_day, self.day())

    @rule(seconds=st.sampled_from([1, 600, 86400]))
    def clock_is_set_back(self, seconds: int) -> None:
        self.clock.wall_s -= seconds

    @invariant()
    def nobody_has_more_at_once_than_may(self) -> None:
        running = [entry for entry in self.entries if entry.used is None]
        assert len(running) <= 4
        assert sum(entry.key == "narrow" for entry in running) <= 2

    @invariant()
    def no_window_holds_more_than_its_minutes(self) -> None:
        for limits, entries in (
            (KEYS["narrow"], [entry for entry in self.entries if entry.key == "narrow"]),
            (TENANT, self.entries),
        ):
            assert limits.rpm is not None and limits.tpm is not None
            for first, opening in enumerate(entries):
                tokens = 0
                for requests, entry in enumerate(entries[first:], 1):
                    tokens += entry.taken(0)
                    minutes = 1 + (entry.at_ns - opening.at_ns) / 60e9
                    assert requests <= limits.rpm * minutes + 1e-6
                    assert tokens <= limits.tpm * minutes + 1e-3

    @invariant()
    def no_day_has_more_than_its_budget(self) -> None:
        month = sum(entry.taken(0) for entry in self.entries)
        assert month <= 5000
        for day in {entry.day for entry in self.entries}:
            of_day = [entry for entry in self.entries if entry.day == day and entry.key == "daily"]
            assert sum(entry.taken(0) for entry in of_day) <= 1000


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
