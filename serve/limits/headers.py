"""OpenAI's `x-ratelimit-*` headers, from the tightest of the limits per minute."""

from collections.abc import Iterable

from serve.limits.rates import MINUTE_NS, TOKEN_BURST_NS, Row, Terms

Headers = list[tuple[bytes, bytes]]
# What remains, the limit, what is in the bucket, the limit's header.
_Room = tuple[int, int, int, tuple[bytes, bytes]]


def headers_of(counted: Iterable[tuple[Terms, Row]], now_ns: int) -> Headers:
    """Limit, what remains of it now, and when all of it will be there again. Of a row its beginning
    is enough (`layout.LEVELS`)."""
    requests: _Room | None = None
    tokens: _Room | None = None
    for terms, row in counted:
        if cost_ns := terms.request_ns:
            level = row[1] - now_ns if row[1] > now_ns else 0
            level += row[7] * cost_ns
            spare_ns = terms.request_burst_ns - level
            room = spare_ns // cost_ns if spare_ns > 0 else 0
            if requests is None or (room, terms.limits.rpm, level) < requests[:3]:
                requests = room, terms.limits.rpm or 0, level, terms.request_limit
        if tpm := terms.tpm:
            level = row[2] - now_ns if row[2] > now_ns else 0
            if row[8]:
                level += terms.token_ns(row[8])
            spare_ns = TOKEN_BURST_NS - level
            room = spare_ns * tpm // MINUTE_NS if spare_ns > 0 else 0
            if room > tpm:
                room = tpm
            if tokens is None or (room, tpm, level) < tokens[:3]:
                tokens = room, tpm, level, terms.token_limit
    headers: Headers = []
    if requests is not None:
        headers += (
            requests[3],
            (b"x-ratelimit-remaining-requests", b"%d" % requests[0]),
            (b"x-ratelimit-reset-requests", _shown(requests[2])),
        )
    if tokens is not None:
        headers += (
            tokens[3],
            (b"x-ratelimit-remaining-tokens", b"%d" % tokens[0]),
            (b"x-ratelimit-reset-tokens", _shown(tokens[2])),
        )
    return headers


def _shown(duration_ns: int) -> bytes:
    if 0 < duration_ns <= 999_000_000:
        return b"%dms" % -(-duration_ns // 10**6)
    return show_ns(duration_ns).encode()


def show_ns(duration_ns: int) -> str:
    """As OpenAI writes it, rounded up to a millisecond: `20ms`, `1s`, `8.64s`, `6m0s`, `1h2m0s`."""
    ms = -(-duration_ns // 10**6)
    if 0 < ms < 1000:
        return f"{ms}ms"
    if ms < 60_000:
        return f"{ms / 1000:g}s"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{ms / 1000:g}s"
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"
