"""The frozen snapshot of what can be served now, as the fleet pushes it to the gateways."""

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from serve.errors import ControlLost

State = Literal["starting", "ready", "restarting", "quarantined"]


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine of a model. `socket`: path of its unix socket; only ready replicas are listed."""

    id: str
    socket: str


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A wanted model. `state` "ready" means `replicas` is not empty.

    `created`: unix seconds, as `/v1/models` shows it.
    """

    name: str
    aliases: tuple[str, ...]
    state: State
    context_tokens: int
    created: int
    replicas: tuple[Replica, ...] = ()


@dataclass(frozen=True, slots=True)
class Roster:
    """`key_digests`: SHA-256 (hex) of every key that may enter; empty = no key is asked for.

    `is_draining`: nothing new is admitted any more.
    """

    version: int = 0
    models: tuple[ServedModel, ...] = ()
    key_digests: frozenset[str] = field(default_factory=frozenset)
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
