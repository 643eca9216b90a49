"""The arithmetic of limits: pure, in integers, without a clock.

Per minute: GCRA, the leaky bucket that needs one number, the time at which it will be empty
(`tat`, ns of the monotonic clock). It holds one minute's worth: 60 per minute allow 60 at once and
then one a second. A reservation is poured in when the request is let in. What it did not use is
taken out again as far as it has not leaked yet: nothing is given back for a minute that is over,
since others have had the room that it left.

Per day and month: what was used, plus what those who are in have reserved, plus what is asked for,
is at most the limit. What is used belongs to the day (UTC) on which the request ends.

Those who wait in a queue hold their reservation, so that the limits refuse at once and not after a
wait, but nothing of theirs is poured in: if they leave, all is as if they had never come.
"""

from calendar import timegm
from dataclasses import dataclass
from functools import lru_cache
from time import gmtime
from typing import NamedTuple

from serve.quota import Limits

MINUTE_NS = 60 * 10**9
DAY_S = 86400
NONE = 2**62  # no limit

# Costs are rounded up to a nanosecond; without this a limit could not be used to its last token.
_ROUNDING_NS = 1024


class Counts(NamedTuple):
    """A row of the table. Letting somebody in changes what is from `request_tat` to `nanos`, and
    settling what is from `token_tat` on: fields that are written together lie together."""

    id: int
    day: int  # since 1970
    month: int  # year × 12 + month
    earlier_tokens: int  # used in the month before the day
    earlier_nanos: int
    request_back: int  # ns ever taken out of the bucket
    waiting: int  # of those in flight, the ones in a queue
    waiting_tokens: int
    request_tat: int
    token_tat: int
    token_back: int
    used_at: int  # ns, monotonic
    in_flight: int  # let in or waiting
    tokens: int  # used in the day, and reserved by those in flight
    nanos: int
    day_tokens: int  # used
    day_nanos: int

    @property
    def reserved_tokens(self) -> int:
        """By those in flight."""
        return self.tokens - self.day_tokens

    @property
    def reserved_nanos(self) -> int:
        """By those in flight."""
        return self.nanos - self.day_nanos

    @property
    def month_tokens(self) -> int:
        """Used."""
        return self.earlier_tokens + self.day_tokens

    @property
    def month_nanos(self) -> int:
        """Used."""
        return self.earlier_nanos + self.day_nanos


@dataclass(frozen=True, slots=True)
class Terms:
    """Limits as they are reckoned with."""

    limits: Limits
    rpm: int  # 0: no limit
    request_ns: int  # that one request takes to leak; 0: no limit
    request_burst_ns: int
    tpm: int  # 0: no limit
    minute_ns: int  # with `per_tokens`: so many ns for so many tokens; 0 for 1 if there is no limit
    per_tokens: int
    concurrency: int
    day_tokens: int
    month_tokens: int
    day_nanos: int
    month_nanos: int
    has_minutes: bool  # a limit per minute
    request_limit: tuple[bytes, bytes]  # the headers that tell it
    token_limit: tuple[bytes, bytes]

    def token_ns(self, tokens: int) -> int:
        """That so many tokens take to leak."""
        return -(-tokens * self.minute_ns // self.per_tokens)


TOKEN_BURST_NS = MINUTE_NS + _ROUNDING_NS


@lru_cache(4096)  # a tenant's are those of many keys
def terms_of(limits: Limits) -> Terms:
    """A limit of 0 is kept from the divisions here; `too_small` refuses it."""
    request_ns = -(-MINUTE_NS // limits.rpm) if limits.rpm else 0
    return Terms(
        limits=limits,
        rpm=limits.rpm or 0,
        request_ns=request_ns,
        request_burst_ns=request_ns * (limits.rpm or 0),
        tpm=limits.tpm or 0,
        minute_ns=MINUTE_NS if limits.tpm else 0,
        per_tokens=limits.tpm or 1,
        concurrency=_or_none(0 if limits.rpm == 0 or limits.tpm == 0 else limits.concurrency),
        day_tokens=_or_none(limits.tokens_per_day),
        month_tokens=_or_none(limits.tokens_per_month),
        day_nanos=_or_none(limits.nanos_per_day),
        month_nanos=_or_none(limits.nanos_per_month),
        has_minutes=bool(limits.rpm or limits.tpm),
        request_limit=(b"x-ratelimit-limit-requests", b"%d" % (limits.rpm or 0)),
        token_limit=(b"x-ratelimit-limit-tokens", b"%d" % (limits.tpm or 0)),
    )


def _or_none(limit: int | None) -> int:
    return NONE if limit is None else limit


@dataclass(frozen=True, slots=True)
class Moment:
    """`now_ns`: monotonic; `at`: unix seconds; `usual_s`: how long a request is in, usually."""

    now_ns: int
    at: float
    usual_s: float


def too_small(terms: Terms, tokens: int, nanos: int) -> tuple[str, int, int] | None:
    """The first limit (name, limit, needed) that could not hold the request if it were alone."""
    limits = terms.limits
    asked = (
        ("rpm", 1),
        ("concurrency", 1),
        ("tpm", tokens),
        ("tokens_per_day", tokens),
        ("tokens_per_month", tokens),
        ("nanos_per_day", nanos),
        ("nanos_per_month", nanos),
    )
    for what, needed in asked:
        limit = getattr(limits, what)
        if limit is not None and needed > limit or limit == 0 and what == "tpm":
            return what, limit, needed
    return None


def holds(terms: Terms, counts: Counts, tokens: int, nanos: int, now_ns: int) -> bool:
    """Whether the request fits into every limit now: whether `waits` finds none, in a
    microsecond."""
    if counts.in_flight >= terms.concurrency:
        return False
    if request_ns := terms.request_ns:
        level = level_ns(counts.request_tat, now_ns) + (counts.waiting + 1) * request_ns
        if level > terms.request_burst_ns:
            return False
    if terms.tpm:
        cost_ns = terms.token_ns(counts.waiting_tokens + tokens)
        if level_ns(counts.token_tat, now_ns) + cost_ns > TOKEN_BURST_NS:
            return False
    tokens += counts.tokens
    nanos += counts.nanos
    return (
        tokens <= terms.day_tokens
        and counts.earlier_tokens + tokens <= terms.month_tokens
        and nanos <= terms.day_nanos
        and counts.earlier_nanos + nanos <= terms.month_nanos
    )


def waits(
    terms: Terms, counts: Counts, tokens: int, nanos: int, moment: Moment
) -> list[tuple[float, str]]:
    """The limits that refuse the request now, each with the seconds until it may not."""
    found = _minute_waits(terms, counts, tokens, moment.now_ns)
    soon_s = moment.usual_s / max(1, counts.in_flight)  # somebody leaves, about
    if counts.in_flight >= terms.concurrency:
        found.append((soon_s, "concurrency"))
    day_s, month_s = seconds_left(counts, moment.at)
    held_tokens, held_nanos = counts.reserved_tokens, counts.reserved_nanos
    for what, used, held, limit, reset_s in (
        ("tokens_per_day", counts.day_tokens + tokens, held_tokens, terms.day_tokens, day_s),
        (
            "tokens_per_month",
            counts.month_tokens + tokens,
            held_tokens,
            terms.month_tokens,
            month_s,
        ),
        ("nanos_per_day", counts.day_nanos + nanos, held_nanos, terms.day_nanos, day_s),
        ("nanos_per_month", counts.month_nanos + nanos, held_nanos, terms.month_nanos, month_s),
    ):
        if used + held > limit:
            # If only reservations are in the way, some of them may be given back soon.
            found.append((soon_s if used <= limit else reset_s, what))
    return found


def _minute_waits(
    terms: Terms, counts: Counts, tokens: int, now_ns: int
) -> list[tuple[float, str]]:
    requests_ns = level_ns(counts.request_tat, now_ns) + (counts.waiting + 1) * terms.request_ns
    tokens_ns = level_ns(counts.token_tat, now_ns) + terms.token_ns(counts.waiting_tokens + tokens)
    over = (
        (requests_ns - terms.request_burst_ns if terms.request_ns else 0, "rpm"),
        (tokens_ns - TOKEN_BURST_NS if terms.tpm else 0, "tpm"),
    )
    return [(over_ns / 10**9, what) for over_ns, what in over if over_ns > 0]


def level_ns(tat: int, now_ns: int) -> int:
    """What is in a bucket, as the time that it takes to leak."""
    return tat - now_ns if tat > now_ns else 0


def refund_ns(mark: int, back: int, cost_ns: int, now_ns: int) -> int:
    """What of `cost_ns` has not leaked yet. `mark`: the bucket's tat right after it was poured in,
    plus what had ever been taken out then; `back`: what has ever been taken out now."""
    left_ns = mark - back - now_ns
    if left_ns <= 0:
        return 0
    return cost_ns if cost_ns < left_ns else left_ns


def month_of(day: int) -> int:
    """The month (year × 12 + month - 1) of a day since 1970."""
    date = gmtime(day * DAY_S)
    return date.tm_year * 12 + date.tm_mon - 1


def seconds_left(counts: Counts, at: float) -> tuple[float, float]:
    """Until the row's day and month end. A clock that was set back makes that longer, honestly."""
    year, month = divmod(counts.month + 1, 12)
    month_end = timegm((year, month + 1, 1, 0, 0, 0))
    return max(0.0, (counts.day + 1) * DAY_S - at), max(0.0, month_end - at)
