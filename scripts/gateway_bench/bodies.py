"""What clients ask: requests of an exact size that tell the upstream how to answer."""

import json
from dataclasses import dataclass
from itertools import cycle, islice

KIB = 1024
_WORDS = ("a", "prompt", "of", "words", "that", "say", "next", "to", "nothing", "at", "all")
_SHARED = 0.6  # of the prompt is the same in all requests, as a system prompt is
_MOST_EVENTS_A_SECOND = 40_000  # of paced streams in all: well below what gateways can carry
_LEAST_PACE_US = 100


@dataclass(frozen=True, slots=True)
class Load:
    """`clients` connections with bodies of `size` bytes; `events` 0: answers that are no streams.

    `per_write`: events that the upstream writes at once, every `pace_us` (0: as they are taken).
    `rate`: requests per second in all, 0: each client asks again when it has its answer.
    """

    clients: int
    size: int = KIB
    events: int = 0
    per_write: int = 1
    pace_us: int = 0
    rate: float = 0.0
    arrivals: str = "even"

    @property
    def is_stream(self) -> bool:
        return self.events > 0

    @property
    def body_name(self) -> str:
        return f"body-{self.size}-{self.events}-{self.per_write}-{self.pace_us}"

    @property
    def shown(self) -> str:
        kind = "stream" if self.is_stream else "unary"
        return f"{kind}, {self.size // KIB} KB, {self.clients} client{'s' * (self.clients > 1)}"


def apart(clients: int, size: int, events: int) -> Load:
    """Streams whose events come one by one, as an engine's steps make them."""
    pace_us = max(_LEAST_PACE_US, clients * 1_000_000 // _MOST_EVENTS_A_SECOND)
    return Load(clients, size, events, 1, pace_us)


def body(load: Load) -> bytes:
    """A chat request of exactly `load.size` bytes; no two that are sent are the same."""
    order = f"bench:n={load.events},k={load.per_write},us={load.pace_us},s={int(load.is_stream)};"
    empty = _request(load, order, "", "")
    missing = load.size - len(empty)
    if missing < 0:
        raise ValueError(f"a body has at least {len(empty)} bytes")
    shared = round(missing * _SHARED)
    return _request(load, order, _text(shared), _text(missing - shared))


def _request(load: Load, order: str, shared: str, own: str) -> bytes:
    wish: dict[str, object] = {
        "model": "bench",
        "messages": [
            {"role": "system", "content": f"{order} {shared}"},
            {"role": "user", "content": f"#00000000 {own}"},
        ],
        "max_tokens": load.events or 100,
        "temperature": 0.7,
    }
    if load.is_stream:
        wish["stream"] = True
    return json.dumps(wish).encode()


def _text(size: int) -> str:
    # A word has at least one letter and a blank, so so many are enough.
    return " ".join(islice(cycle(_WORDS), size // 2 + 1))[:size]
