"""Who comes in: keys, scopes, addresses.

What a client sends as its key is hashed and looked up; it goes nowhere else, into no message and
no log. Nothing here grows with what clients send.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Protocol

from serve.errors import Forbidden, KeyExpired, Unauthorized
from serve.gateway.origins import Clients, is_from_a_foreign_page
from serve.gateway.served import Served
from serve.quota import Key, Scope, Tenant
from serve.roster import Roster

_LONGEST_VALUE = 512  # bytes of a header that may hold a key; ours have 67
_SHOWN = 100  # bytes of a name that a client sent
_NOBODY = Tenant("")
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who has been let in. `key` None: none is asked for here. `address`: the client's."""

    key: Key | None
    tenant: Tenant
    address: str


class Entry(Protocol):
    """Headers that always come with the same address."""

    caller: Caller | None
    roster: Roster | None
    until_s: float


class Door:
    """One per gateway process. `trusted_proxies`: networks whose X-Forwarded-For is believed; the
    word `unix` stands for peers on a unix socket. SettingsError if one is no network."""

    def __init__(
        self,
        served: Served,
        trusted_proxies: tuple[str, ...] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._served = served
        self._clients = Clients(trusted_proxies)
        self._clock = clock
        self._roster: Roster | None = None
        self._tenants: dict[str, Tenant] = {}

    def enter(self, headers: dict[bytes, bytes], peer: str, scope: Scope) -> Caller:
        """Let in, or Unauthorized, KeyExpired, Forbidden. `peer`: the other end of the connection.

        Where no key is asked for, what a browser sends for a foreign page is refused: that page
        would be all the world.
        """
        roster = self._served.roster
        if roster is not self._roster:
            self._learn(roster)
        address = self._clients.address(headers, peer)
        if roster.is_open:
            return self._enter_freely(headers, address, scope)
        key = self._key(headers)
        if key.expires_at is not None and self._clock() >= key.expires_at:
            raise KeyExpired(key.expires_at)
        if scope not in key.scopes:
            raise Forbidden("scope", scope)
        return Caller(key, self._tenants[key.tenant], address)

    def known(self, entry: Entry) -> Caller | None:
        """Who was let in with the same headers, if that still holds; None: ask again."""
        if entry.roster is self._served.roster and self._clock() < entry.until_s:
            return entry.caller
        return None

    def remember(self, entry: Entry, caller: Caller) -> None:
        """Let in the same again, until its key expires or there is another roster."""
        key = caller.key
        entry.caller, entry.roster = caller, self._served.roster
        expires_at = key.expires_at if key is not None else None
        entry.until_s = math.inf if expires_at is None else expires_at

    def _key(self, headers: dict[bytes, bytes]) -> Key:
        value = headers.get(b"authorization") or headers.get(b"x-api-key")
        if value is None:
            raise Unauthorized(has_key=False)
        key = self._served.keyring.find(value) if len(value) <= _LONGEST_VALUE else None
        if key is None:
            raise Unauthorized(has_key=True)
        return key

    def _enter_freely(self, headers: dict[bytes, bytes], address: str, scope: Scope) -> Caller:
        if scope == "admin":
            raise Unauthorized(has_key=False)  # without keys nobody can be told from the operator
        if is_from_a_foreign_page(headers):
            page = headers.get(b"origin") or headers.get(b"host") or b""
            raise Forbidden("origin", page[:_SHOWN].decode("latin-1"))
        return Caller(None, _NOBODY, address)

    def _learn(self, roster: Roster) -> None:
        """Tenants by name: those that the operator has described, and those of keys alone."""
        tenants = {key.tenant: Tenant(key.tenant) for key in roster.keys}
        self._tenants = tenants | {tenant.name: tenant for tenant in roster.tenants}
        self._roster = roster


def may_use(key: Key | None, *names: str) -> bool:
    """Whether the key may use a model. `names`: those that the roster has for it."""
    if key is None or not key.models:
        return True
    return _is_among(key.models, names)


@lru_cache(_REMEMBERED)
def _is_among(patterns: tuple[str, ...], names: tuple[str, ...]) -> bool:
    plain = [name.casefold() for name in names]
    return any(fnmatchcase(name, pattern.casefold()) for pattern in patterns for name in plain)
