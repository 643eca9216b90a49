"""The root of every error of ours, and what goes wrong in serving: the supervisor, the ledger,
requests. Import all of it from `serve.errors`, which has the tree.
"""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(eq=False)
class InhouseError(Exception):
    """The root. Every field is a fact that an edge may put into words."""

    def __str__(self) -> str:
        facts = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
        return f"{type(self).__name__}({facts})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))


@dataclass(eq=False)
class ServeError(InhouseError):
    """The supervisor cannot start, or cannot be reached."""


@dataclass(eq=False)
class PortTaken(ServeError):
    """Somebody else listens there."""

    host: str
    port: int
    verb: str = "serve"  # who wanted to


@dataclass(eq=False)
class OpenDoor(ServeError):
    """A bind beyond loopback without an API key."""

    host: str


@dataclass(eq=False)
class NotRunning(ServeError):
    """Nobody answers at control.sock."""

    socket: str


@dataclass(eq=False)
class AlreadyRunning(ServeError):
    """Another supervisor holds control.sock."""

    socket: str


@dataclass(eq=False)
class ControlLost(ServeError):
    """The supervisor went away in the middle of an answer, or gave one we cannot read."""

    reason: str


@dataclass(eq=False)
class GatewayDied(ServeError):
    """The gateway process ends again and again."""

    exit_code: int
    log_path: str


@dataclass(eq=False)
class LedgerError(InhouseError):
    """Keys, usage or the audit log cannot be read or written."""


@dataclass(eq=False)
class LedgerUnavailable(LedgerError):
    """The database cannot be used. `url` has no password in it."""

    url: str
    reason: str


@dataclass(eq=False)
class LedgerNewer(LedgerError):
    """A newer Inhouse has written it."""

    url: str
    revision: str


@dataclass(eq=False)
class UnknownKey(LedgerError):
    """No key has this id or name."""

    name: str
    near: tuple[str, ...] = ()


@dataclass(eq=False)
class AuditBroken(LedgerError):
    """The audit log is not what was written."""

    at: int  # number of the first record that is wrong or missing
    problem: str


@dataclass(eq=False)
class RequestError(InhouseError):
    """A request that we, not the engine, answer with an error."""


@dataclass(eq=False)
class BadRequest(RequestError):
    """The body is not what the route takes."""

    problem: str
    param: str | None = None


@dataclass(eq=False)
class BodyTooLarge(RequestError):
    """More bytes than `server.max_body`."""

    limit_bytes: int


@dataclass(eq=False)
class Unauthorized(RequestError):
    """No key, or one that nobody knows."""

    has_key: bool


@dataclass(eq=False)
class RouteNotFound(RequestError):
    """No such path."""

    method: str
    path: str


@dataclass(eq=False)
class MethodNotAllowed(RequestError):
    """The path is there, the method is not."""

    method: str
    path: str


@dataclass(eq=False)
class ModelNotServed(RequestError):
    """The roster has no model of this name."""

    name: str
    near: tuple[str, ...] = ()


@dataclass(eq=False)
class ModelNotReady(RequestError):
    """The model is wanted, but no replica of it can answer now."""

    name: str
    state: str  # "starting", "restarting", "quarantined"
    retry_after_s: int


@dataclass(eq=False)
class ShuttingDown(RequestError):
    """We drain; come back later."""

    retry_after_s: int


@dataclass(eq=False)
class EngineGone(RequestError):
    """The engine went away before, or in the middle of, its answer."""

    model: str
    is_started: bool  # the head of the answer had been passed on already


@dataclass(eq=False)
class Forbidden(RequestError):
    """The key is known, but may not do this."""

    reason: str  # "scope", "model", "origin"
    name: str  # the scope that is missing, or the model


@dataclass(eq=False)
class KeyExpired(RequestError):
    """The key was good until then."""

    expired_at: float  # unix seconds


@dataclass(eq=False)
class RateLimited(RequestError):
    """A limit of a key, a tenant or a model is reached; nothing was counted."""

    owner: str  # "key", "tenant", "model"
    what: str  # a field of `quota.Limits`
    limit: int  # in that field's unit
    retry_after_s: float


@dataclass(eq=False)
class TooLongForLimit(RequestError):
    """The request needs more tokens than a limit ever allows at once: waiting would not help."""

    owner: str  # "key", "tenant", "model"
    what: str
    limit: int
    needed: int


@dataclass(eq=False)
class QueueFull(RequestError):
    """As many requests wait for the model as may."""

    model: str
    retry_after_s: float


@dataclass(eq=False)
class QueueTimeout(RequestError):
    """The request has waited as long as it may."""

    model: str
    waited_s: float
    retry_after_s: float


@dataclass(eq=False)
class Poisonous(RequestError):
    """The very same request was there when engines died."""

    model: str
    deaths: int


@dataclass(eq=False)
class NotEnabled(RequestError):
    """The operator has not turned this on."""

    what: str  # "files and batches"
    setting: str  # "server.batches"


@dataclass(eq=False)
class NoSuchObject(RequestError):
    """A file, a batch or an object of the API that is not (or no longer) here."""

    kind: str  # "file", "batch", "key"
    id: str
