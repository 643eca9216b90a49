"""Who may use what, how much of it, and what it costs: keys, tenants, limits, prices, as types.

Money is counted in nanos: 1e-9 of the currency of the operator's prices, whichever that is.
A price is per million tokens, so one token at 0.27 costs 270 nanos and every sum is exact.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

Scope = Literal["inference", "admin", "metrics"]
Priority = Literal["interactive", "default", "batch"]  # from the most urgent to the least

NANOS = 10**9  # of one unit of the currency


@dataclass(frozen=True, slots=True)
class Limits:
    """What somebody may take; None: as much as there is. Days and months are those of UTC."""

    rpm: int | None = None  # requests per minute
    tpm: int | None = None  # tokens per minute, input and output
    concurrency: int | None = None  # requests at once
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    nanos_per_day: int | None = None
    nanos_per_month: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """Nanos per token."""

    input: int = 0
    cached_input: int = 0
    output: int = 0

    def cost(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
        """Nanos. `cached_tokens` are those of `input_tokens` that were in the prefix cache."""
        return (
            (input_tokens - cached_tokens) * self.input
            + cached_tokens * self.cached_input
            + output_tokens * self.output
        )


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who pays, and shares prefix caches. `weight`: its share of a crowded model."""

    name: str
    weight: int = 1
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as everybody but its holder knows it: `digest` is the SHA-256 (hex) of its text.

    `models`: names or patterns (`qwen*`) that it may use, empty: all. `expires_at`: unix seconds.
    `priority`: the most urgent class that it may ask for.
    """

    id: str
    digest: str
    tenant: str
    name: str = ""
    scopes: tuple[Scope, ...] = ("inference",)
    models: tuple[str, ...] = ()
    limits: Limits = Limits()
    expires_at: float | None = None
    priority: Priority = "default"


def digest_key(text: str) -> str:
    """The SHA-256 of a key's text, in hex."""
    return sha256(text.encode()).hexdigest()


class Keyring:
    """A fixed set of keys. What is looked up is a digest, so the time that takes says nothing."""

    __slots__ = ("_by_digest",)

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._by_digest = {bytes.fromhex(key.digest): key for key in keys}

    def find(self, header_value: bytes) -> Key | None:
        """The key in the value of an `Authorization: Bearer …` or `x-api-key` header."""
        if header_value.startswith(b"Bearer "):  # as nearly all write it
            text = header_value[7:].strip()
        else:
            scheme, _, credentials = header_value.partition(b" ")
            text = credentials.strip() if scheme.lower() == b"bearer" else header_value
        return self._by_digest.get(sha256(text).digest())
