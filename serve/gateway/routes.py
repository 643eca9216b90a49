"""The one table of routes: what a path is, who may use it, and how. What is not here is not there.

Looked up by the raw bytes of the request's target, before anything else is done with it: no
decoding, no Host and no `..` leads from one row to another.
"""

from dataclasses import dataclass

from serve.quota import Scope


@dataclass(frozen=True, slots=True)
class Route:
    """One path. `target`: "engine", or the name of our own part that answers.

    `scope` None: needs no key. `name`: how books and metrics call it. `counts`: answers have
    tokens that are paid for. `takes_salt`: bodies may have a `cache_salt`. `streams_usage`: takes
    `stream_options`. `is_form`: the body is multipart, not JSON.
    """

    name: str
    target: str
    methods: tuple[str, ...] = ("POST",)
    scope: Scope | None = "inference"
    counts: bool = True
    takes_salt: bool = True
    streams_usage: bool = False
    is_form: bool = False


def _relayed(*paths: str, **more: bool) -> dict[bytes, Route]:
    return {path.encode(): Route(path, "engine", **more) for path in paths}  # type: ignore[arg-type]


_GET, _LOOK = ("GET",), ("GET", "HEAD")
_ANY = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD")
_EXACT: dict[bytes, Route] = {
    **_relayed("/v1/chat/completions", "/v1/completions", streams_usage=True),
    **_relayed("/v1/responses", "/v1/messages", "/v1/embeddings"),
    **_relayed("/v1/rerank", "/rerank", "/v2/rerank", "/v1/score", "/score", "/pooling"),
    **_relayed("/classify"),
    **_relayed("/v1/messages/count_tokens", "/tokenize", "/detokenize", counts=False),
    **_relayed("/v1/audio/transcriptions", "/v1/audio/translations", is_form=True),
    b"/v1/models": Route("/v1/models", "models", _GET),
    b"/metrics": Route("/metrics", "metrics", _GET, "metrics"),
    b"/health": Route("/health", "health", _GET, None),
    b"/ready": Route("/ready", "ready", _GET, None),
    # How tools look for an Ollama, before they know a key: the same words whatever is served here.
    b"/": Route("/", "ollama", _LOOK, None),
    b"/api/version": Route("/api", "ollama", _LOOK, None),
    b"/openapi.json": Route("/openapi.json", "openapi", _GET),
    b"/v1/files": Route("/v1/files", "files", ("GET", "POST")),
    b"/v1/batches": Route("/v1/batches", "batches", ("GET", "POST")),
}
# What begins so; the rest is its owner's to read. The longest first.
_PREFIXES: tuple[tuple[bytes, Route], ...] = (
    (b"/v1/models/", Route("/v1/models", "models", _GET)),
    (b"/v1/files/", Route("/v1/files", "files", ("GET", "DELETE"))),
    (b"/v1/batches/", Route("/v1/batches", "batches", ("GET", "POST"))),
    (b"/admin/", Route("/admin", "admin", _ANY, "admin")),
    (b"/api/", Route("/api", "ollama", _ANY)),
)
# A path that nobody has still needs a key: strangers learn nothing of what is here.
NOWHERE = Route("other", "nowhere", _ANY)
RELAYED = tuple(path.decode() for path, route in _EXACT.items() if route.target == "engine")


def find(raw_path: bytes) -> Route:
    """The route of a request's target (without its query); NOWHERE if there is none."""
    route = _EXACT.get(raw_path)
    if route is not None:
        return route
    for prefix, route in _PREFIXES:
        if raw_path.startswith(prefix):
            return route
    return NOWHERE
