"""`/admin/…`: what an administrator may do from afar, passed on to the supervisor.

Only what the table has is passed on, with who asks and from where: the supervisor believes it,
because its socket is the owner's alone. Nobody comes here without a key of scope admin.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpcore
import msgspec

from serve.errors import (
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    ModelNotServed,
    NoSuchObject,
    RequestError,
    RouteNotFound,
    ShuttingDown,
)
from serve.gateway.body import read_body
from serve.gateway.exchange import Request, answer

_MOST_BODY_BYTES = 64 * 1024
_RETRY_AFTER_S = 5
# A model may take minutes to load; whether it still does, the supervisor knows.
_TIMEOUTS = {"connect": 5.0, "read": None, "write": 5.0, "pool": 5.0}
_JSON = (b"content-type", b"application/json")
_UNAVAILABLE = frozenset(("LedgerUnavailable", "LedgerNewer", "DiskFull", "NotWritable"))


@dataclass(frozen=True, slots=True)
class _Row:
    """`to`: the supervisor's path, `{}` for what was found in ours. `query`: what it takes."""

    method: str
    path: re.Pattern[str]
    to: str
    query: frozenset[str] = frozenset()


_KEY = "([a-z0-9]{1,64})"
_ROWS = (
    _Row("GET", re.compile("/admin/status"), "/status"),
    _Row("GET", re.compile("/admin/keys"), "/keys"),
    _Row("POST", re.compile("/admin/keys"), "/keys"),
    _Row("GET", re.compile(f"/admin/keys/{_KEY}"), "/keys/{}"),
    _Row("POST", re.compile(f"/admin/keys/{_KEY}/revoke"), "/keys/{}/revoke"),
    _Row("POST", re.compile(f"/admin/keys/{_KEY}/rotate"), "/keys/{}/rotate"),
    _Row("POST", re.compile("/admin/models/load"), "/load"),
    _Row("POST", re.compile("/admin/models/unload"), "/unload"),
    _Row(
        "GET", re.compile("/admin/audit"), "/audit",
        frozenset(("after", "since", "action", "actor", "last")),
    ),
    _Row(
        "GET", re.compile("/admin/usage"), "/usage",
        frozenset(("by", "since", "until")),
    ),
)  # fmt: skip
# What control may say no with, in the words of the API.
_ERRORS: dict[str, Callable[[Mapping[str, Any]], RequestError]] = {
    "BadRequest": lambda facts: BadRequest(str(facts["problem"])),
    "SettingsError": lambda facts: BadRequest(f"{facts['key']} {facts['problem']}"),
    "Forbidden": lambda facts: Forbidden(facts["reason"], facts["name"]),
    "UnknownKey": lambda facts: NoSuchObject("key", facts["name"]),
    "UnknownModel": lambda facts: ModelNotServed(facts["name"], tuple(facts["near"])),
    "NotPulled": lambda facts: ModelNotServed(facts["name"]),
}


class _Said(msgspec.Struct):
    """How the supervisor says no: see `serve.wire`."""

    error: str
    facts: dict[str, Any]


async def answer_admin(request: Request, control: Path) -> None:
    """Do, or refuse (RequestError), what somebody with a key of scope admin asks for."""
    row, names = _find(request.method, request.path)
    query = _query(request.query, row.query)
    body = await read_body(
        request.receive, request.headers.get(b"content-length"), _MOST_BODY_BYTES
    )
    if body is None:
        return  # the client has left
    target = row.to.format(*names) + query
    status, content = await _ask(control, row.method, target, body, _who(request))
    if status == 200:
        await answer(request, 200, content, [_JSON])
    else:
        await _refuse(request, content)


def _find(method: str, path: str) -> tuple[_Row, tuple[str, ...]]:
    found = [(row, match) for row in _ROWS if (match := row.path.fullmatch(path))]
    for row, match in found:
        if row.method == method:
            return row, match.groups()
    if found:
        raise MethodNotAllowed(method, path)
    raise RouteNotFound(method, path)


def _query(query: bytes, known: frozenset[str]) -> str:
    try:
        asked = parse_qsl(query.decode(), keep_blank_values=True, max_num_fields=16)
    except ValueError:
        raise BadRequest("The query cannot be read.") from None
    for name, _ in asked:
        if name not in known:
            raise BadRequest(f"The query may have: {', '.join(sorted(known)) or 'nothing'}.")
    return f"?{urlencode(asked)}" if asked else ""


def _who(request: Request) -> list[tuple[bytes, bytes]]:
    key = request.caller.key
    return [
        (b"x-inhouse-actor", f"key:{key.id if key else ''}".encode()),
        (b"x-inhouse-address", request.caller.address.encode("latin-1", "replace")),
        (b"x-request-id", request.id),
        _JSON,
    ]


async def _ask(
    control: Path, method: str, target: str, body: bytes, headers: list[tuple[bytes, bytes]]
) -> tuple[int, bytes]:
    async with httpcore.AsyncConnectionPool(uds=str(control)) as pool:
        try:
            response = await pool.request(
                method,
                f"http://control{target}",
                headers=[(b"host", b"control"), *headers],
                content=body,
                extensions={"timeout": _TIMEOUTS},
            )
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise ShuttingDown(_RETRY_AFTER_S) from error  # or coming back
        return response.status, response.content


async def _refuse(request: Request, content: bytes) -> None:
    try:
        said = msgspec.json.decode(content, type=_Said)
        known = _ERRORS.get(said.error)
        error = known(said.facts) if known else None
    except (msgspec.MsgspecError, KeyError, TypeError):
        raise ShuttingDown(_RETRY_AFTER_S) from None
    if error is not None:
        raise error
    # The rest is the house's: its facts are an administrator's to see.
    told = {"message": said.error, "type": "admin_error", "param": None, "code": "failed"}
    status = 503 if said.error in _UNAVAILABLE else 409
    answered = msgspec.json.encode({"error": told | {"facts": said.facts}})
    await answer(request, status, answered, [_JSON])
