"""Keys and the audit log over `control.sock`."""

from typing import Annotated, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.control.answers import as_json, asked_by, read_wish
from serve.control.desk import Desk
from serve.errors import BadRequest
from serve.quota import Key, Limits, Priority, Scope

_DAY_S = 86400.0
_MOST_RECORDS = 10_000
_Query = TypeVar("_Query", bound=msgspec.Struct)
_Count = Annotated[int, msgspec.Meta(ge=1)] | None


class LimitsWish(msgspec.Struct, forbid_unknown_fields=True):
    """`quota.Limits`, read strictly."""

    rpm: _Count = None
    tpm: _Count = None
    concurrency: _Count = None
    tokens_per_day: _Count = None
    tokens_per_month: _Count = None
    nanos_per_day: Annotated[int, msgspec.Meta(ge=0)] | None = None
    nanos_per_month: Annotated[int, msgspec.Meta(ge=0)] | None = None


class KeyWish(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /keys`: see `quota.Key`."""

    tenant: str
    name: str = ""
    scopes: tuple[Scope, ...] = ("inference",)
    models: tuple[str, ...] = ()
    limits: LimitsWish = msgspec.field(default_factory=LimitsWish)
    expires_at: float | None = None
    priority: Priority = "default"

    def terms(self) -> Key:
        """The key that is wanted, without id and digest."""
        limits = Limits(**msgspec.structs.asdict(self.limits))
        return Key(
            "", "", self.tenant, self.name, self.scopes, self.models, limits, self.expires_at,
            self.priority,
        )  # fmt: skip


class RotateWish(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /keys/ID/rotate`: how long the old key works on."""

    overlap_s: Annotated[float, msgspec.Meta(ge=0)] = _DAY_S


class NoWish(msgspec.Struct, forbid_unknown_fields=True):
    """The empty body, of `POST /keys/ID/revoke`."""


def ledger_routes(desk: Desk) -> list[Route]:
    """Routes for what lies in the ledger."""

    async def keys(_: Request) -> Response:
        return as_json(await desk.keys())

    async def key(request: Request) -> Response:
        return as_json(await desk.key(_name(request)))

    async def create(request: Request) -> Response:
        wish = await read_wish(request, KeyWish)
        return as_json(await desk.create_key(wish.terms(), asked_by(request)))

    async def revoke(request: Request) -> Response:
        await read_wish(request, NoWish)
        return as_json(await desk.revoke_key(_name(request), asked_by(request)))

    async def rotate(request: Request) -> Response:
        wish = await read_wish(request, RotateWish)
        made = await desk.rotate_key(_name(request), wish.overlap_s, asked_by(request))
        return as_json(made)

    async def audit(request: Request) -> Response:
        return as_json(await desk.records(msgspec.structs.asdict(_asked(request, _Which))))

    async def usage(request: Request) -> Response:
        asked = _asked(request, _Span)
        by = tuple(word for word in asked.by.split(",") if word)
        return as_json(await desk.usage(by, asked.since, asked.until))

    return [
        Route("/keys", keys),
        Route("/keys", create, methods=["POST"]),
        Route("/keys/{name:path}", key),
        Route("/keys/{name:path}/revoke", revoke, methods=["POST"]),
        Route("/keys/{name:path}/rotate", rotate, methods=["POST"]),
        Route("/audit", audit),
        Route("/usage", usage),
    ]


def _name(request: Request) -> str:
    return str(request.path_params["name"])


class _Which(msgspec.Struct, forbid_unknown_fields=True):
    """The query of `GET /audit`: see `AuditLog.records`."""

    after: int = 0
    since: float = 0.0
    action: str = ""
    actor: str = ""
    last: Annotated[int, msgspec.Meta(ge=1, le=_MOST_RECORDS)] = 100


class _Span(msgspec.Struct, forbid_unknown_fields=True):
    """The query of `GET /usage`: times are unix seconds."""

    by: str = ""
    since: float | None = None
    until: float | None = None


def _asked(request: Request, kind: type[_Query]) -> _Query:
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from error
