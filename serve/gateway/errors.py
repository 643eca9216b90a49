"""Errors in the words of the API: class → HTTP status, type, code and sentence.

The one home of HTTP statuses and error types. Engines' own error answers pass us unchanged.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from serve import errors
from serve.errors import InhouseError

Headers = list[tuple[bytes, bytes]]
_PATIENCE_S = 60.0
_SHOWN_CHARACTERS = 100  # of a name that the client sent


@dataclass(frozen=True, slots=True)
class Row:
    """How one class of error is answered. `say` puts its facts into a sentence."""

    status: int
    type: str
    code: str
    say: Callable[[Any], str]
    param: str | None = None


def _asked(
    code: str, say: Callable[[Any], str], status: int = 400, param: str | None = None
) -> Row:
    return Row(status, "invalid_request_error", code, say, param)


def _failed(status: int, code: str, sentence: str) -> Row:
    return Row(status, "server_error", code, lambda error: sentence)


def _near(names: tuple[str, ...]) -> str:
    return f" Did you mean {' or '.join(repr(name) for name in names)}?" if names else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def _say_model(error: errors.ModelNotServed | errors.UnknownModel) -> str:
    return f"The model {_short(error.name)} is not served here.{_near(error.near)}"


def _say_route(error: errors.RouteNotFound) -> str:
    return f"There is no {error.method} {_short(error.path)} here."


def _say_key(error: errors.Unauthorized) -> str:
    if error.has_key:
        return "This API key is not known here."
    return "An API key is needed: send the header 'Authorization: Bearer KEY'."


def _say_gone(error: errors.EngineGone) -> str:
    when = "in the middle of its answer" if error.is_started else "before it answered"
    return f"The engine of {_short(error.model)} went away {when}. Please try again."


def _say_not_ready(error: errors.ModelNotReady) -> str:
    return f"The model {_short(error.name)} is not ready yet: {error.state}. Please try again."


_LIMITS = {
    "rpm": "requests per minute",
    "tpm": "tokens per minute",
    "concurrency": "requests at once",
    "tokens_per_day": "tokens per day",
    "tokens_per_month": "tokens per month",
    "nanos_per_day": "the budget of the day",
    "nanos_per_month": "the budget of the month",
}


def _say_forbidden(error: errors.Forbidden) -> str:
    if error.reason == "model":
        return f"This API key may not use the model {_short(error.name)}."
    if error.reason == "origin":
        return f"Pages of other sites may not use a server without keys: {_short(error.name)}."
    return f"This API key may not do this: {error.reason} {_short(error.name)}."


def _say_limited(error: errors.RateLimited) -> str:
    limit = _LIMITS.get(error.what, error.what)
    return f"A limit of this {error.owner} is reached: {limit}. Please try later."


def _say_too_long(error: errors.TooLongForLimit) -> str:
    limit = _LIMITS.get(error.what, error.what)
    return f"This request needs more than a limit of this {error.owner} ever allows: {limit}."


_INTERNAL = _failed(500, "internal_error", "Something went wrong in the server.")
_UNAVAILABLE = _failed(503, "unavailable", "The model cannot be served at the moment.")

TABLE: dict[type[InhouseError], Row] = {
    # what the client asked for
    errors.BadRequest: _asked("bad_request", lambda error: error.problem),
    errors.BodyTooLarge: _asked(
        "body_too_large",
        lambda error: f"The body is larger than {error.limit_bytes} bytes.",
        status=413,
    ),
    errors.Unauthorized: _asked("invalid_api_key", _say_key, status=401),
    errors.RouteNotFound: _asked("route_not_found", _say_route, status=404),
    errors.MethodNotAllowed: _asked(
        "method_not_allowed",
        lambda error: f"{_short(error.path)} does not take {error.method}.",
        status=405,
    ),
    errors.ModelNotServed: _asked("model_not_found", _say_model, status=404, param="model"),
    errors.UnknownModel: _asked("model_not_found", _say_model, status=404, param="model"),
    errors.KeyExpired: _asked("key_expired", lambda error: "This API key has expired.", status=401),
    errors.Forbidden: _asked("forbidden", _say_forbidden, status=403),
    errors.Poisonous: _asked(
        "request_blocked",
        lambda error: (
            f"This very request was there each time that the engine of {_short(error.model)} died; "
            "it is not tried again."
        ),
        status=422,
    ),
    errors.NotEnabled: _asked(
        "not_enabled",
        lambda error: f"The operator has not turned on {error.what} ({error.setting}).",
        status=403,
    ),
    errors.NoSuchObject: _asked(
        "not_found", lambda error: f"There is no {error.kind} {_short(error.id)} here.", status=404
    ),
    # what somebody has used up
    errors.RateLimited: Row(429, "rate_limit_error", "rate_limit_exceeded", _say_limited),
    errors.TooLongForLimit: _asked("limit_too_small", _say_too_long),
    errors.QueueFull: Row(
        429,
        "rate_limit_error",
        "queue_full",
        lambda error: f"Too many requests wait for {_short(error.model)}. Please try again.",
    ),
    errors.QueueTimeout: Row(
        503,
        "server_error",
        "queue_timeout",
        lambda error: f"No place became free at {_short(error.model)}. Please try again.",
    ),
    # what we cannot do now
    errors.ModelNotReady: Row(503, "server_error", "model_not_ready", _say_not_ready, "model"),
    errors.ShuttingDown: _failed(503, "shutting_down", "The server is shutting down."),
    errors.EngineGone: Row(502, "server_error", "engine_gone", _say_gone),
    # what never belongs to one request: no facts of the house leave it
    errors.NotPulled: _UNAVAILABLE,
    errors.DoesNotFit: _UNAVAILABLE,
    errors.RuntimeMissing: _UNAVAILABLE,
    errors.IsolationUnavailable: _UNAVAILABLE,
    errors.StartFailed: _UNAVAILABLE,
    errors.StartTimedOut: _UNAVAILABLE,
    errors.EngineDied: _UNAVAILABLE,
    errors.Quarantined: _UNAVAILABLE,
    errors.NotRunning: _UNAVAILABLE,
    errors.ControlLost: _UNAVAILABLE,
    errors.GatewayDied: _UNAVAILABLE,
    errors.SettingsError: _INTERNAL,
    errors.CatalogError: _INTERNAL,
    errors.SourceUnreachable: _INTERNAL,
    errors.AccessDenied: _INTERNAL,
    errors.RepoNotFound: _INTERNAL,
    errors.HashMismatch: _INTERNAL,
    errors.UnsafeWeights: _INTERNAL,
    errors.ExtraMissing: _INTERNAL,
    errors.WeightsDamaged: _INTERNAL,
    errors.NotAllowed: _INTERNAL,
    errors.LockMismatch: _INTERNAL,
    errors.BadFile: _INTERNAL,
    errors.DiskFull: _INTERNAL,
    errors.NotWritable: _INTERNAL,
    errors.ConversionFailed: _INTERNAL,
    errors.RuntimeInstallFailed: _INTERNAL,
    errors.PortTaken: _INTERNAL,
    errors.OpenDoor: _INTERNAL,
    errors.AlreadyRunning: _INTERNAL,
    errors.LedgerUnavailable: _INTERNAL,
    errors.LedgerNewer: _INTERNAL,
    errors.UnknownKey: _INTERNAL,
    errors.AuditBroken: _INTERNAL,
}

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    503: "overloaded_error",
}


def speaks_anthropic(path: str) -> bool:
    """Whether clients of this path expect Anthropic's error object instead of OpenAI's."""
    return path.startswith("/v1/messages")


def answer(error: InhouseError, path: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body that tell `error` to a client of `path`."""
    row = TABLE[type(error)]
    content = msgspec.json.encode(_record(error, path))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
    ]
    if (retry_after_s := getattr(error, "retry_after_s", None)) is not None:
        # Rounded up: who comes back a moment too early is refused again.
        headers.append((b"retry-after", b"%d" % math.ceil(retry_after_s)))
        headers.append((b"retry-after-ms", b"%d" % math.ceil(1000 * retry_after_s)))
        if retry_after_s > _PATIENCE_S:  # SDKs would ask again meanwhile, in vain
            headers.append((b"x-should-retry", b"false"))
    if row.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return row.status, headers, content


def code(error: InhouseError) -> str:
    """The word for programs, as the audit log has it too."""
    return TABLE[type(error)].code


def event(error: InhouseError, path: str) -> bytes:
    """A server-sent event that ends a stream which has begun well."""
    name = b"event: error\n" if speaks_anthropic(path) else b""
    return name + b"data: " + msgspec.json.encode(_record(error, path)) + b"\n\n"


def as_event(content: bytes, path: str) -> bytes:
    """The same for the answer of an engine (an error, as JSON) that came in one piece."""
    name = b"event: error\n" if speaks_anthropic(path) else b""
    return name + b"data: " + b" ".join(content.splitlines()) + b"\n\n"


def _record(error: InhouseError, path: str) -> dict[str, Any]:
    row = TABLE[type(error)]
    message = row.say(error)
    if speaks_anthropic(path):
        kind = _ANTHROPIC_TYPES.get(row.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}
    if path.startswith("/api/"):  # Ollama's
        return {"error": message}
    param = getattr(error, "param", None) or row.param
    return {"error": {"message": message, "type": row.type, "param": param, "code": row.code}}
