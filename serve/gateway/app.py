"""The outermost ASGI callable: lets in or refuses, and takes the fast path before FastAPI."""

import secrets
from itertools import count

from starlette.types import Receive, Scope, Send

from serve.errors import EngineGone, MethodNotAllowed, RequestError, Unauthorized
from serve.gateway import errors
from serve.gateway.metrics import Metrics
from serve.gateway.probes import make_probes
from serve.gateway.relay import Relay, Request
from serve.gateway.served import Served
from serve.gateway.upstream import Pool

RELAYED = frozenset(
    (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/tokenize",
        "/detokenize",
    )
)
# The only paths that need no key, by their raw bytes: no decoding, no Host, no `..` opens others.
_OPEN = frozenset((b"/health", b"/ready"))
_MODELS = "/v1/models"


class Gateway:
    """One per process."""

    def __init__(self, served: Served, max_body: int) -> None:
        self._served = served
        self._metrics = Metrics()
        pool = Pool()
        self._relay = Relay(served, pool, self._metrics, max_body)
        self._probes = make_probes(served, pool, self._metrics)
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        # Made by us: an engine keys its own state by it, so no client may choose one.
        id = f"{self._prefix}-{next(self._numbers):x}".encode()
        request = Request(path, dict(scope["headers"]), id, receive, send)
        try:
            self._authorise(scope["raw_path"], request.headers)
            if path in RELAYED:
                self._demand("POST", scope)
                await self._relay(request)
            elif path.startswith(_MODELS) and path[len(_MODELS) :][:1] in ("", "/"):
                self._demand("GET", scope)
                await self._show_models(request)
            else:
                await self._probes(scope, receive, send)
        except RequestError as error:
            await self._refuse(request, error)

    def _authorise(self, raw_path: bytes, headers: dict[bytes, bytes]) -> None:
        if raw_path in _OPEN:
            return
        key = headers.get(b"authorization") or headers.get(b"x-api-key")
        if self._served.roster.is_open:
            return
        if key is None or self._served.keyring.find(key) is None:
            raise Unauthorized(has_key=key is not None)

    def _demand(self, method: str, scope: Scope) -> None:
        if scope["method"] != method:
            raise MethodNotAllowed(scope["method"], scope["path"])

    async def _show_models(self, request: Request) -> None:
        name = request.path[len(_MODELS) + 1 :]
        content = self._served.card(name) if name else self._served.listing
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
        ]
        await _answer(request, 200, headers, content)

    async def _refuse(self, request: Request, error: RequestError) -> None:
        status, headers, content = errors.answer(error, request.path)
        route = request.path if request.path in RELAYED else "other"
        model = error.model if isinstance(error, EngineGone) else ""  # never a client's word
        self._metrics.series(model, route).count(status)
        await _answer(request, status, headers, content)


async def _answer(request: Request, status: int, headers: errors.Headers, content: bytes) -> None:
    headers.append((b"x-request-id", request.id))
    await request.send({"type": "http.response.start", "status": status, "headers": headers})
    await request.send({"type": "http.response.body", "body": content})
