"""The short way through the limits beside the plain arithmetic: two tables, the same requests, and
for one of them nothing is ever known beforehand. They must say and write the same.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serve.errors import RateLimited, TooLongForLimit
from serve.limits import Admission, Ask, Table, Ticket
from serve.limits.claim import Claim
from serve.limits.layout import GENERATION, id_of
from serve.limits.line import Line
from serve.limits.party import Party
from serve.limits.rates import Counts, Moment, holds, terms_of, waits
from serve.quota import Limits
from tests.limits.asking import ask
from tests.limits.clocks import HandClock

Result = tuple[object, ...]


def limits(most: int) -> st.SearchStrategy[Limits]:
    """Narrow ones, wide ones and none."""
    some = st.sampled_from([None, None, 1, 3, most, 10**9])
    return st.builds(Limits, *[some] * 7)


FREE = Limits()
WIDE = Limits(10**6, 10**9, 10**6, 10**12, 10**12, 10**12, 10**12)
# Of key, tenant and model. Few, since only what has been met before is plain.
MET = [
    (WIDE, WIDE, WIDE),
    (Limits(rpm=7, tpm=311), WIDE, WIDE),
    (WIDE, Limits(tpm=1000, concurrency=3), FREE),
    (FREE, FREE, Limits(rpm=3)),
    (Limits(tokens_per_day=900, nanos_per_month=3000), FREE, WIDE),
    (FREE, WIDE, Limits(tokens_per_month=1500, nanos_per_day=1500)),
    (Limits(tpm=900), Limits(tpm=800), Limits(rpm=50, tpm=700)),
    (Limits(rpm=0), FREE, Limits(tpm=0)),
]


class Side:
    """One of the two."""

    def __init__(self, file: Path, clock: HandClock, is_forgetful: bool) -> None:
        Table.make(file, 1, rows=64)
        self.table = Table(file, clock=clock)
        self.admission = Admission(self.table, 10)
        self.tickets: list[Ticket] = []
        self.claims: list[Claim] = []
        self.is_forgetful = is_forgetful

    def does(self, step: Callable[["Side"], object]) -> Result:
        if self.is_forgetful:
            self.table.renew()
        try:
            return ("done", step(self))
        except (RateLimited, TooLongForLimit) as refusal:
            return type(refusal).__name__, *refusal.__dict__.items()

    def enter(self, asked: Ask) -> bool:
        if (ticket := self.admission.try_enter(asked)) is not None:
            self.tickets.append(ticket)
        return ticket is not None

    def wait(self, asked: Ask) -> bool:
        """Into the queue, as a request of another process might."""
        assert asked.key is not None
        lines = (
            Line(self.table, "key", asked.key.id, asked.key.limits),
            Line(self.table, "model", asked.model, asked.model_limits),
        )
        claim = Claim(Party(self.table, lines, True), asked.tokens, asked.nanos)
        if is_in := claim.wait(10, 1.0):
            self.claims.append(claim)
        return is_in

    def content(self) -> bytes:
        """Of the table, but for what is known beforehand."""
        content = bytes(self.table.bytes)
        return content[: GENERATION.start] + content[GENERATION.stop :]


class Sides(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.clock.go(43200 - 200)  # midnight is near
        self.folder = TemporaryDirectory()
        folder = Path(self.folder.name)
        self.sides = (
            Side(folder / "short", self.clock, False),
            Side(folder / "plain", self.clock, True),
        )

    def teardown(self) -> None:
        for side in self.sides:
            side.table.close()
        self.folder.cleanup()

    def both(self, step: Callable[[Side], object]) -> Result:
        short, plain = (side.does(step) for side in self.sides)
        assert short == plain
        return short

    @rule(
        key=st.sampled_from("aab"),
        of=st.sampled_from(MET),
        tokens=st.sampled_from([0, 1, 37, 37, 311, 400]),
        nanos=st.sampled_from([0, 1, 700]),
        slots=st.sampled_from([0, 3, 100]),
        does_wait=st.sampled_from([False] * 6 + [True]),
    )
    def ask(
        self,
        key: str,
        of: tuple[Limits, Limits, Limits],
        tokens: int,
        nanos: int,
        slots: int,
        does_wait: bool,
    ) -> None:
        of_key, of_tenant, of_model = of
        asked = ask(
            tokens,
            nanos,
            key=key,
            of_key=of_key,
            of_tenant=of_tenant,
            of_model=of_model,
            slots=slots,
        )
        self.both(lambda side: side.wait(asked) if does_wait else side.enter(asked))

    @precondition(lambda self: self.sides[0].tickets)
    @rule(
        pick=st.integers(0, 100),
        tokens=st.sampled_from([None, 0, 1, 36, 500]),
        nanos=st.sampled_from([None, 0, 1, 699, 5000]),
    )
    def settle(self, pick: int, tokens: int | None, nanos: int | None) -> None:
        def step(side: Side) -> object:
            ticket = side.tickets[pick % len(side.tickets)]
            as_asked = ticket.reserved
            ticket.settle(
                as_asked[0] if tokens is None else tokens, as_asked[1] if nanos is None else nanos
            )
            side.tickets.remove(ticket)
            return None

        self.both(step)

    @precondition(lambda self: self.sides[0].claims)
    @rule(pick=st.integers(0, 100), how=st.sampled_from(["leave", "let_in", "take_back"]))
    def end_a_wait(self, pick: int, how: str) -> None:
        def step(side: Side) -> object:
            claim = side.claims.pop(pick % len(side.claims))
            if how == "leave":
                claim.leave()
            else:
                assert claim.let_in(0)
                if how == "take_back":
                    claim.take_back()
            return claim.taken

        self.both(step)

    @rule(tokens=st.integers(0, 50), what=st.sampled_from(["charge", "seed", "clear"]))
    def the_supervisor_acts(self, tokens: int, what: str) -> None:
        def step(side: Side) -> None:
            if what == "charge":
                side.table.charge("tenant", "t", tokens, tokens)
            elif what == "seed":
                side.table.seed("key", "a", (tokens, 5), (2 * tokens, 9))
            else:
                side.table.clear_slot(0)

        self.both(step)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.5, 5.0, 20.0, 61.0, 86400.0, 30 * 86400.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.go(seconds)

    @rule(seconds=st.sampled_from([1, 600, 86400]))
    def clock_is_set_back(self, seconds: int) -> None:
        self.clock.wall_s -= seconds

    @invariant()
    def all_is_the_same(self) -> None:
        short, plain = self.sides
        assert short.content() == plain.content()
        headers = [[ticket.headers() for ticket in side.tickets] for side in self.sides]
        assert headers[0] == headers[1]


TestSides = Sides.TestCase
TestSides.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_what_is_plain_goes_the_short_way() -> None:
    """Or else the two sides above would be one."""
    table = Table(None, clock=HandClock())
    lines = tuple(Line(table, owner, "o", WIDE) for owner in ("key", "tenant", "model"))
    party = Party(table, lines, True)
    now_ns = table.tick()
    assert party.enter(10, 10, 100, now_ns) is None
    first = Claim(party, 10, 10)
    assert first.enter(100, 1.0, now_ns)
    taken = party.enter(10, 10, 100, now_ns)
    assert taken is not None
    assert party.enter(10, 10, 2, now_ns) is None
    assert party.settle((10, 10), (3, 30), taken, now_ns)
    table.renew()
    assert party.enter(10, 10, 100, now_ns) is None
    assert not party.settle((10, 10), (3, 30), first.taken, now_ns)


@pytest.mark.parametrize(
    ("limits", "of_each"),
    [
        (Limits(tpm=1000), (300, 0)),
        (Limits(rpm=3), (1, 1)),
        (Limits(concurrency=3), (1, 1)),
        (Limits(tokens_per_day=1000), (300, 0)),
        (Limits(tokens_per_month=1000), (300, 0)),
        (Limits(nanos_per_day=1000), (0, 300)),
        (Limits(nanos_per_month=1000), (0, 300)),
    ],
)
@pytest.mark.parametrize("owner", range(3))
def test_the_short_way_keeps_every_limit_of_everybody(
    limits: Limits, of_each: tuple[int, int], owner: int
) -> None:
    admission = Admission(Table(None, clock=HandClock()), 10)
    of = [WIDE, WIDE, WIDE]
    of[owner] = limits
    asked = ask(*of_each, of_key=of[0], of_tenant=of[1], of_model=of[2], slots=10)
    assert all(admission.try_enter(asked) for _ in range(3))
    with pytest.raises(RateLimited):
        admission.try_enter(asked)


@pytest.mark.parametrize("of", MET[:3])
def test_the_short_way_ends_where_somebody_waits(of: tuple[Limits, Limits, Limits]) -> None:
    table = Table(None, clock=HandClock())
    admission = Admission(table, 10)
    asked = ask(1, 1, of_key=of[0], of_tenant=of[1], of_model=of[2], slots=100)
    assert admission.try_enter(asked) is not None
    lines = (Line(table, "model", "m", of[2]),)
    claim = Claim(Party(table, lines, True), 1, 1)
    assert claim.wait(10, 1.0)
    assert admission.try_enter(asked) is None
    claim.leave()
    assert admission.try_enter(asked) is not None


counts = st.builds(
    Counts,
    st.just(id_of("key", "k")),
    st.just(19_000),
    st.just(624 * 12),
    *[st.integers(0, 3000)] * 3,
    *[st.integers(0, 3)] * 2,
    *[st.integers(10**12 - 10**10, 10**12 + 7 * 10**10)] * 2,
    *[st.integers(0, 10**12)] * 2,
    st.integers(0, 4),
    *[st.integers(1000, 3000)] * 2,
    *[st.integers(0, 1000)] * 2,
)


@settings(max_examples=500)
@given(limits(1500), counts, st.integers(0, 1600), st.integers(0, 1600))
def test_what_holds_has_nothing_to_wait_for(
    limits: Limits, counts: Counts, tokens: int, nanos: int
) -> None:
    terms, now_ns = terms_of(limits), 10**12
    found = waits(terms, counts, tokens, nanos, Moment(now_ns, 19_000 * 86400.0, 1.0))
    assert holds(terms, counts, tokens, nanos, now_ns) == (not found)
