"""The frozen snapshot of what can be served now, as the fleet pushes it to the gateways."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from serve.errors import ControlLost
from serve.quota import Key, Limits, Price, Tenant

State = Literal["starting", "ready", "restarting", "quarantined"]
Routing = Literal["prefix", "least-load", "round-robin"]


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine of a model; only ready replicas are listed.

    `address`: `unix:/path`, `http://host:port` or `https://host:port`. `kv_tokens`: size of its
    KV cache, `slots`: requests that it works on at once, 0: not known. `key`: what an upstream of
    somebody else wants as `Authorization: Bearer`. `epoch`: another one for each of its lives, as
    each begins with an empty cache.
    """

    id: str
    address: str
    kv_tokens: int = 0
    slots: int = 0
    key: str = ""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A wanted model. `state` "ready" means `replicas` is not empty.

    `created`: unix seconds, as `/v1/models` shows it. `upstream`: the name that the replicas know
    it by, empty: `name`. `takes_salt`: replicas keep prefix caches apart by `cache_salt`.
    """

    name: str
    aliases: tuple[str, ...]
    state: State
    context_tokens: int
    created: int
    replicas: tuple[Replica, ...] = ()
    upstream: str = ""
    routing: Routing = "prefix"
    limits: Limits = Limits()
    price: Price = Price()
    takes_salt: bool = True


@dataclass(frozen=True, slots=True)
class Roster:
    """`is_open`: no key is asked for; otherwise nobody enters without one of `keys`.

    `tenants`: those with a weight or limits of their own; others have `Tenant(name)`.
    `is_draining`: nothing new is admitted any more.
    """

    version: int = 0
    models: tuple[ServedModel, ...] = ()
    keys: tuple[Key, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    is_open: bool = True
    is_draining: bool = False

    def to_line(self) -> bytes:
        """One line of JSON for the feed, newline included."""
        return msgspec.json.encode(self) + b"\n"

    @staticmethod
    def from_line(line: bytes) -> "Roster":
        """The roster that `to_line` wrote; ControlLost if the line is none."""
        try:
            return msgspec.json.decode(line, type=Roster)
        except msgspec.MsgspecError as error:
            raise ControlLost(f"a roster that is not understood: {error}") from error
