"""Check everything, reserve in one go, settle once: on a clock that is set by hand."""

import pytest

from serve.errors import RateLimited, TooLongForLimit
from serve.limits import Admission, Table, Ticket
from serve.limits.headers import shown
from serve.quota import Limits
from tests.limits.asking import ask
from tests.limits.clocks import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def table(clock: HandClock) -> Table:
    return Table(None, clock=clock)


@pytest.fixture
def admission(table: Table) -> Admission:
    return Admission(table, 100)


def entered(ticket: Ticket | None) -> Ticket:
    assert ticket is not None
    return ticket


@pytest.mark.parametrize("rpm", [1, 7, 60, 999, 70_000])
def test_a_minute_s_worth_at_once_then_one_by_one(
    admission: Admission, clock: HandClock, rpm: int
) -> None:
    limits = Limits(rpm=rpm)
    for _ in range(rpm):
        entered(admission.try_enter(ask(of_key=limits))).settle(1, 0)
    with pytest.raises(RateLimited) as refusal:
        admission.try_enter(ask(of_key=limits))
    assert refusal.value.retry_after_s == pytest.approx(60 / rpm)
    clock.go(refusal.value.retry_after_s + 2e-9)  # an honest wait
    entered(admission.try_enter(ask(of_key=limits)))
    with pytest.raises(RateLimited):
        admission.try_enter(ask(of_key=limits))


@pytest.mark.parametrize("parts", [1, 3, 7, 1000])
def test_a_limit_of_tokens_can_be_used_to_its_last_token(admission: Admission, parts: int) -> None:
    limits = Limits(tpm=parts * 37)
    for _ in range(parts):
        entered(admission.try_enter(ask(37, of_tenant=limits)))
    with pytest.raises(RateLimited, match="tenant"):
        admission.try_enter(ask(1, of_tenant=limits))


@pytest.mark.parametrize(
    "what", ["tpm", "tokens_per_day", "tokens_per_month", "nanos_per_day", "nanos_per_month"]
)
def test_five_at_once_on_a_budget_for_one(admission: Admission, what: str) -> None:
    limits = Limits(**{what: 100})
    entered(admission.try_enter(ask(90, 90, of_key=limits)))
    for _ in range(4):
        with pytest.raises(RateLimited) as refusal:
            admission.try_enter(ask(90, 90, of_key=limits))
        assert (refusal.value.what, refusal.value.limit) == (what, 100)


@pytest.mark.parametrize("what", [*Limits.__dataclass_fields__])
def test_what_could_never_fit_is_told_so(admission: Admission, what: str) -> None:
    limits = Limits(**{what: 0})
    with pytest.raises(TooLongForLimit) as refusal:
        admission.try_enter(ask(101, 101, of_model=limits))
    assert (refusal.value.owner, refusal.value.what) == ("model", what)


def test_a_refused_request_costs_nothing(admission: Admission, table: Table) -> None:
    wide = Limits(10**6, 10**9, 10**6, 10**12, 10**12, 10**12, 10**12)
    narrow = Limits(concurrency=1)
    asked = ask(50, 50, of_key=wide, of_tenant=wide, of_model=narrow)
    ticket = entered(admission.try_enter(asked))
    before = bytes(table.bytes)
    for _ in range(20):
        with pytest.raises(RateLimited):
            admission.try_enter(asked)
    assert bytes(table.bytes) == before
    ticket.settle(50, 50)
    entered(admission.try_enter(asked))


def test_settling_gives_back_what_was_not_used_and_charges_what_was_beyond(
    admission: Admission,
) -> None:
    limits = Limits(tpm=100, tokens_per_day=100, nanos_per_month=100)
    ticket = entered(admission.try_enter(ask(100, 100, of_key=limits)))
    ticket.settle(40, 40)
    ticket.settle(100, 100)  # once
    entered(admission.try_enter(ask(60, 60, of_key=limits))).settle(70, 70)
    with pytest.raises(RateLimited):
        admission.try_enter(ask(1, 0, of_key=limits))


def test_nothing_is_given_back_for_a_minute_that_is_over(
    admission: Admission, clock: HandClock
) -> None:
    limits = Limits(tpm=60)
    early = entered(admission.try_enter(ask(30, of_key=limits)))  # leaks within 30 s
    clock.go(40)
    entered(admission.try_enter(ask(60, of_key=limits)))
    early.settle(0, 0)
    with pytest.raises(RateLimited):
        admission.try_enter(ask(1, of_key=limits))


def test_what_is_given_back_is_given_back_once(admission: Admission, clock: HandClock) -> None:
    """What others gave back moved the whole bucket: what leaked is older than it seems."""
    limits = Limits(tpm=60)
    tickets = [entered(admission.try_enter(ask(20, of_key=limits))) for _ in range(3)]
    for ticket in tickets[:2]:
        ticket.settle(0, 0)
    clock.go(30)  # the third one's 20 have leaked since
    entered(admission.try_enter(ask(60, of_key=limits)))
    tickets[2].settle(0, 0)
    with pytest.raises(RateLimited):
        admission.try_enter(ask(1, of_key=limits))


def test_what_is_used_beyond_the_reservation_is_owed(
    admission: Admission, clock: HandClock
) -> None:
    limits = Limits(tpm=60)
    entered(admission.try_enter(ask(10, of_key=limits))).settle(130, 0)
    with pytest.raises(RateLimited) as refusal:
        admission.try_enter(ask(1, of_key=limits))
    assert refusal.value.retry_after_s == pytest.approx(71, rel=1e-6)


def test_the_limit_that_takes_longest_is_named(admission: Admission, clock: HandClock) -> None:
    limits = Limits(rpm=1, tokens_per_day=10)
    entered(admission.try_enter(ask(10, of_key=limits))).settle(10, 0)
    with pytest.raises(RateLimited) as refusal:
        admission.try_enter(ask(10, of_key=limits))
    assert refusal.value.what == "tokens_per_day"
    assert refusal.value.retry_after_s == 43200  # from noon to midnight, UTC
    clock.go(43200)
    entered(admission.try_enter(ask(10, of_key=limits)))


def test_days_and_months_end_on_their_own(admission: Admission, clock: HandClock) -> None:
    limits = Limits(nanos_per_day=10, nanos_per_month=15)
    entered(admission.try_enter(ask(1, 10, of_key=limits))).settle(1, 10)
    clock.go(86400)
    with pytest.raises(RateLimited, match="nanos_per_month") as refusal:
        admission.try_enter(ask(1, 10, of_key=limits))
    entered(admission.try_enter(ask(1, 5, of_key=limits))).settle(1, 5)
    clock.go(refusal.value.retry_after_s)
    entered(admission.try_enter(ask(1, 10, of_key=limits)))


@pytest.mark.parametrize("back_s", [1, 86400, 40 * 86400])
def test_a_clock_that_is_set_back_gives_nothing_away(
    admission: Admission, clock: HandClock, back_s: int
) -> None:
    limits = Limits(tokens_per_day=10, tokens_per_month=10**6, rpm=100)
    clock.go(43200)  # right after midnight
    entered(admission.try_enter(ask(10, of_key=limits))).settle(10, 0)
    for jump_s in (-back_s, back_s, -back_s):
        clock.wall_s += jump_s
        with pytest.raises(RateLimited, match="tokens_per_day") as refusal:
            admission.try_enter(ask(1, of_key=limits))
        assert refusal.value.retry_after_s > 0


def test_the_ledger_s_sums_count_and_charges_add_to_them(
    admission: Admission, table: Table
) -> None:
    limits = Limits(tokens_per_day=100, nanos_per_month=1000)
    table.seed("tenant", "t", (50, 0), (5000, 900))
    entered(admission.try_enter(ask(30, 50, of_tenant=limits))).settle(30, 50)
    with pytest.raises(RateLimited, match="tokens_per_day"):
        admission.try_enter(ask(30, 0, of_tenant=limits))
    with pytest.raises(RateLimited, match="nanos_per_month"):
        admission.try_enter(ask(0, 60, of_tenant=limits))
    table.charge("tenant", "t", 20, 50)
    with pytest.raises(RateLimited):
        admission.try_enter(ask(1, 0, of_tenant=limits))


def test_limits_may_change_while_requests_are_in(admission: Admission) -> None:
    ticket = entered(admission.try_enter(ask(of_key=Limits(concurrency=1))))
    second = entered(admission.try_enter(ask(of_key=Limits(concurrency=2))))
    with pytest.raises(RateLimited):
        admission.try_enter(ask(of_key=Limits(concurrency=2)))
    ticket.settle(1, 0)
    second.settle(1, 0)
    entered(admission.try_enter(ask(of_key=Limits(concurrency=1))))


def test_headers_are_of_the_tightest(admission: Admission, clock: HandClock) -> None:
    ticket = entered(
        admission.try_enter(
            ask(30, of_key=Limits(rpm=60), of_tenant=Limits(rpm=6, tpm=60), of_model=Limits(tpm=99))
        )
    )
    assert dict(ticket.headers()) == {
        b"x-ratelimit-limit-requests": b"6",
        b"x-ratelimit-remaining-requests": b"5",
        b"x-ratelimit-reset-requests": b"10s",
        b"x-ratelimit-limit-tokens": b"60",
        b"x-ratelimit-remaining-tokens": b"30",
        b"x-ratelimit-reset-tokens": b"30s",
    }
    clock.go(60)
    assert dict(ticket.headers())[b"x-ratelimit-reset-requests"] == b"0s"
    ticket.settle(1, 0)
    assert ticket.headers() == []
    assert entered(admission.try_enter(ask())).headers() == []


@pytest.mark.parametrize(
    ("rpm", "shown"), [(10**6, b"1ms"), (6000, b"10ms"), (60, b"1s"), (59, b"1.017s")]
)
def test_headers_tell_short_times_as_they_do_long_ones(
    admission: Admission, rpm: int, shown: bytes
) -> None:
    ticket = entered(admission.try_enter(ask(of_key=Limits(rpm=rpm), of_model=Limits(tpm=10**9))))
    headers = dict(ticket.headers())
    assert headers[b"x-ratelimit-reset-requests"] == shown
    assert headers[b"x-ratelimit-reset-tokens"] == b"1ms"
    assert len(headers) == 6


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, b"0s"),
        (1, b"1ms"),
        (20, b"20ms"),
        (1000, b"1s"),
        (8640, b"8.64s"),
        (360_000, b"6m0s"),
        (3_720_000, b"1h2m0s"),
    ],
)
def test_durations_are_shown_as_openai_does(ms: int, text: bytes) -> None:
    assert shown(ms) == text
