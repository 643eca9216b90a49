"""What the routes of `control.sock` have in common: bodies, answers, and who asks."""

from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serve.control.desk import By
from serve.errors import BadRequest

_Wish = TypeVar("_Wish", bound=msgspec.Struct)
# Who asks, as the CLI and the gateways say it. They are believed: the socket is the owner's alone.
ACTOR, ADDRESS, REQUEST = "x-inhouse-actor", "x-inhouse-address", "x-request-id"


async def read_wish(request: Request, kind: type[_Wish]) -> _Wish:
    """The body, parsed; BadRequest if it is not what the route takes."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise BadRequest(str(error)) from error


def as_json(answer: object) -> Response:
    """An answer with a body of JSON."""
    return Response(msgspec.json.encode(answer), media_type="application/json")


def asked_by(request: Request) -> By:
    """Who asks, for the audit log."""
    said = request.headers
    return said.get(ACTOR, "control"), said.get(ADDRESS, ""), said.get(REQUEST, "")
