"""Who comes in: keys, scopes, addresses."""

from dataclasses import dataclass

from serve.errors import Unauthorized
from serve.gateway.served import Served
from serve.quota import Key, Scope, Tenant


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who has been let in. `key` None: no key is asked for here. `address`: the client's."""

    key: Key | None
    tenant: Tenant
    address: str


class Door:
    """One per gateway process."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def enter(self, headers: dict[bytes, bytes], peer: str, scope: Scope) -> Caller:
        """Let in, or Unauthorized, KeyExpired, Forbidden. `peer`: the other end of the connection."""
        if self._served.roster.is_open:
            return Caller(None, Tenant(""), peer)
        text = headers.get(b"authorization") or headers.get(b"x-api-key")
        key = self._served.keyring.find(text) if text is not None else None
        if key is None:
            raise Unauthorized(has_key=text is not None)
        return Caller(key, Tenant(key.tenant), peer)
