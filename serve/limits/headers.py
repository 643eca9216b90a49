"""OpenAI's `x-ratelimit-*` headers, from the tightest of the limits per minute."""

from collections.abc import Iterable
from functools import lru_cache

from serve.limits.rates import MINUTE_NS, TOKEN_BURST_NS, Terms

Headers = list[tuple[bytes, bytes]]
Levels = tuple[int, ...]  # `Counts.waiting` … `token_tat`
_Room = tuple[int, int, int, tuple[bytes, bytes]]  # what remains, the limit, what is in the bucket


def headers_of(counted: Iterable[tuple[Terms, Levels]], now_ns: int) -> Headers:
    """Limit, what remains of it now, and when all of it will be there again."""
    requests: list[_Room] = []
    tokens: list[_Room] = []
    for terms, (waiting, waiting_tokens, request_tat, token_tat) in counted:
        if cost_ns := terms.request_ns:
            level = (request_tat - now_ns if request_tat > now_ns else 0) + waiting * cost_ns
            room = (terms.request_burst_ns - level) // cost_ns
            requests.append((max(0, room), terms.rpm, level, terms.request_limit))
        if tpm := terms.tpm:
            level = token_tat - now_ns if token_tat > now_ns else 0
            if waiting_tokens:
                level += terms.token_ns(waiting_tokens)
            room = (TOKEN_BURST_NS - level) * tpm // MINUTE_NS
            tokens.append((max(0, min(room, tpm)), tpm, level, terms.token_limit))
    headers: Headers = []
    if requests:
        room, _, level, limit = min(requests)
        reset = b"x-ratelimit-reset-requests", shown(-(-level // 10**6))
        headers += limit, (b"x-ratelimit-remaining-requests", b"%d" % room), reset
    if tokens:
        room, _, level, limit = min(tokens)
        reset = b"x-ratelimit-reset-tokens", shown(-(-level // 10**6))
        headers += limit, (b"x-ratelimit-remaining-tokens", b"%d" % room), reset
    return headers


@lru_cache(4096)
def shown(ms: int) -> bytes:
    """As OpenAI writes it: `20ms`, `1s`, `8.64s`, `6m0s`, `1h2m0s`."""
    if 0 < ms < 1000:
        return b"%dms" % ms
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{ms / 1000:g}s"
    text = f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"
    return (text if hours or minutes else seconds).encode()
