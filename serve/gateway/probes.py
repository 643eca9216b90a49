"""What is not on the fast path: health, readiness, metrics; and the answer to every other path."""

import asyncio

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from serve.errors import InhouseError, MethodNotAllowed, RouteNotFound
from serve.gateway import errors
from serve.gateway.metrics import CONTENT_TYPE, Metrics, merge
from serve.gateway.served import Served
from serve.gateway.upstream import Pool

_SCRAPE_TIMEOUT_S = 2.0


def make_probes(served: Served, pool: Pool, metrics: Metrics) -> FastAPI:
    """The FastAPI application behind the fast path. It shows no schema and no docs."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ready")
    async def ready(response: Response) -> dict[str, object]:
        states = {model.name: model.state for model in served.roster.models}
        is_ready = any(model.replicas for model in served.roster.models)
        is_ready = is_ready and not served.roster.is_draining
        response.status_code = 200 if is_ready else 503
        return {"ready": is_ready, "draining": served.roster.is_draining, "models": states}

    @app.get("/metrics")
    async def all_metrics() -> Response:
        text = metrics.text() + merge(await _scrape(served, pool))
        return Response(text, media_type=CONTENT_TYPE)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, refusal: HTTPException) -> Response:
        path = request.scope["path"]
        missing: InhouseError = RouteNotFound(request.method, path)
        if refusal.status_code == 405:
            missing = MethodNotAllowed(request.method, path)
        status, headers, content = errors.answer(missing, path)
        return Response(content, status, {name.decode(): value.decode() for name, value in headers})

    return app


async def _scrape(served: Served, pool: Pool) -> dict[str, str]:
    """The text of every engine that answers in time, by replica."""
    replicas = [replica for model in served.roster.models for replica in model.replicas]
    texts = await asyncio.gather(
        *(
            pool.fetch(replica.address.removeprefix("unix:"), "/metrics", _SCRAPE_TIMEOUT_S)
            for replica in replicas
        )
    )
    pairs = zip(replicas, texts, strict=True)
    return {replica.id: text.decode() for replica, text in pairs if text is not None}
