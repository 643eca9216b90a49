"""OpenAI's `x-ratelimit-*` headers, from the tightest of the limits per minute."""

from collections.abc import Iterable

from serve.limits.rates import MINUTE_NS, TOKEN_BURST_NS, Row, Terms, level_ns

Headers = list[tuple[bytes, bytes]]
_Room = tuple[int, int, int]  # what remains, the limit, what is in the bucket


def headers_of(counted: Iterable[tuple[Terms, Row]], now_ns: int) -> Headers:
    """Limit, what remains of it now, and when all of it will be there again."""
    requests: list[_Room] = []
    tokens: list[_Room] = []
    for terms, row in counted:
        if terms.request_ns:
            level = level_ns(row[1], now_ns) + row[7] * terms.request_ns
            room = max(0, terms.request_burst_ns - level) // terms.request_ns
            requests.append((room, terms.limits.rpm or 0, level))
        if terms.tpm:
            level = level_ns(row[2], now_ns) + terms.token_ns(row[8])
            room = max(0, TOKEN_BURST_NS - level) * terms.tpm // MINUTE_NS
            tokens.append((min(room, terms.tpm), terms.tpm, level))
    headers: Headers = []
    if requests:
        room, limit, level = min(requests)
        headers += (
            (b"x-ratelimit-limit-requests", b"%d" % limit),
            (b"x-ratelimit-remaining-requests", b"%d" % room),
            (b"x-ratelimit-reset-requests", show_ns(level).encode()),
        )
    if tokens:
        room, limit, level = min(tokens)
        headers += (
            (b"x-ratelimit-limit-tokens", b"%d" % limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % room),
            (b"x-ratelimit-reset-tokens", show_ns(level).encode()),
        )
    return headers


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
