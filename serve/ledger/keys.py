"""API keys. A key itself is never kept: its SHA-256 is, and only that is compared."""

import hashlib
from collections.abc import Iterable


def digest_key(key: str) -> str:
    """The SHA-256 of a key, in hex, as rosters and the ledger hold it."""
    return hashlib.sha256(key.encode()).hexdigest()


class Keyring:
    """A fixed set of key digests (hex). An empty one admits everybody: no key is asked for."""

    __slots__ = ("_digests",)

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self._digests = frozenset(digests)

    def admits(self, header_value: bytes | None) -> bool:
        """Whether the value of an `Authorization: Bearer …` or `x-api-key` header may enter.

        What is looked up is a digest, so the time that takes says nothing about any key.
        """
        if not self._digests:
            return True
        if header_value is None:
            return False
        scheme, _, credentials = header_value.partition(b" ")
        key = credentials.strip() if scheme.lower() == b"bearer" else header_value
        return hashlib.sha256(key).hexdigest() in self._digests
