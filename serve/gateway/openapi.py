"""`/openapi.json`: every route of ours, as OpenAPI 3.1. Written by hand, because the routes are
answered by no framework that could know them; tests hold it against a running gateway.
"""

from functools import cache
from typing import Any

import msgspec

from serve.gateway import openapi_words as words

_JSON, _EVENTS, _LINES = "application/json", "text/event-stream", "application/x-ndjson"
_FORM, _BYTES, _PLAIN = "multipart/form-data", "application/octet-stream", "text/plain"

_REFUSALS = {
    "400": "The request is not what the route takes.",
    "401": "No key, or one that is not known.",
    "403": "The key may not do this, or the operator has not turned it on.",
    "404": "No such model, file, batch or path.",
    "405": "The path does not take this method.",
    "413": "The body is too large.",
    "422": "This very request was there when engines died.",
    "429": "A limit is reached, or too many wait: see Retry-After.",
    "500": "Something went wrong in the server.",
    "502": "The engine went away.",
    "503": "The model is not ready, or nothing became free in time: see Retry-After.",
}

# Path, what it does, what is asked, what is told; both streaming and not.
_ENGINE = (
    ("/v1/chat/completions", "Answer a conversation", "ChatRequest", "ChatAnswer"),
    ("/v1/completions", "Continue a text", "CompletionRequest", "ChatAnswer"),
    ("/v1/responses", "Answer, in the words of OpenAI's Responses", "ResponsesRequest",
     "ResponsesAnswer"),
    ("/v1/messages", "Answer, in Anthropic's words", "MessagesRequest", "MessagesAnswer"),
    ("/v1/messages/count_tokens", "Count, in Anthropic's words", "CountRequest", "CountAnswer"),
    ("/v1/embeddings", "Embed texts", "EmbeddingRequest", "EmbeddingAnswer"),
    ("/v1/rerank", "Order documents by a query", "AnyRequest", "AnyAnswer"),
    ("/rerank", "Order documents by a query", "AnyRequest", "AnyAnswer"),
    ("/v2/rerank", "Order documents by a query", "AnyRequest", "AnyAnswer"),
    ("/v1/score", "Score pairs of texts", "AnyRequest", "AnyAnswer"),
    ("/score", "Score pairs of texts", "AnyRequest", "AnyAnswer"),
    ("/classify", "Classify texts", "AnyRequest", "AnyAnswer"),
    ("/pooling", "Pool hidden states", "AnyRequest", "AnyAnswer"),
    ("/tokenize", "Turn a text into tokens", "AnyRequest", "AnyAnswer"),
    ("/detokenize", "Turn tokens into a text", "AnyRequest", "AnyAnswer"),
)  # fmt: skip
_FORMS = (
    ("/v1/audio/transcriptions", "Write down what is said"),
    ("/v1/audio/translations", "Write down what is said, in English"),
)
_LOOKS = (
    ("/v1/models", "What is served here", "Models"),
    ("/v1/models/{name}", "One model", "Model"),
    ("/v1/files", "The files of the caller's tenant", "Files"),
    ("/v1/files/{id}", "One file", "File"),
    ("/v1/batches", "The batches of the caller's tenant", "Batches"),
    ("/v1/batches/{id}", "One batch", "Batch"),
    ("/api/tags", "Models, as Ollama lists them", "OllamaTags"),
    ("/api/ps", "Models that can answer now, as Ollama lists them", "OllamaTags"),
)
_OLLAMA = (
    ("/api/chat", "Answer a conversation, in Ollama's words", "OllamaChat"),
    ("/api/generate", "Answer a prompt, in Ollama's words", "OllamaGenerate"),
    ("/api/embed", "Embed texts, in Ollama's words", "OllamaEmbed"),
    ("/api/embeddings", "Embed a text, in Ollama's older words", "OllamaEmbeddings"),
    ("/api/show", "What is known of a model, in Ollama's words", "OllamaShow"),
)
# For keys of scope admin; what is asked and told is in docs/keys.md and docs/audit.md.
_ADMIN = (
    ("/admin/status", "get", "The supervisor and its models"),
    ("/admin/keys", "get", "The keys"),
    ("/admin/keys", "post", "Make a key"),
    ("/admin/keys/{id}", "get", "One key"),
    ("/admin/keys/{id}/revoke", "post", "Revoke a key"),
    ("/admin/keys/{id}/rotate", "post", "Put a new key in the place of one"),
    ("/admin/models/load", "post", "Load a model"),
    ("/admin/models/unload", "post", "Unload a model"),
    ("/admin/audit", "get", "The audit log"),
    ("/admin/usage", "get", "What was used"),
)


@cache
def document() -> bytes:
    """The document, as JSON."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Inhouse",
                "version": "1",
                "description": "Fields that are not named here pass to the engines as they are.",
            },
            "paths": _paths(),
            "components": {
                "schemas": words.ASKED | words.TOLD,
                "responses": _refusals(),
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
            },
            "security": [{"bearer": []}, {"header": []}],
        }
    )


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}

    def add(path: str, method: str, operation: dict[str, Any]) -> None:
        paths.setdefault(path, {})[method] = operation
        if "{" in path:
            name = path.partition("{")[2].partition("}")[0]
            where = {"name": name, "in": "path", "required": True, "schema": words.TEXT}
            operation["parameters"] = [where, *operation.get("parameters", ())]

    for path, about, asked, told in _ENGINE:
        answers = {_JSON: words.ref(told), _EVENTS: {}}
        add(path, "post", _operation(path, about, answers, {_JSON: words.ref(asked)}, "4XX", "5XX"))
    for path, about in _FORMS:
        form = words.thing(("model", "file"), model=words.TEXT, file=words.TEXT)
        add(path, "post", _operation(path, about, {_JSON: {}, _EVENTS: {}, _PLAIN: {}},
                                     {_FORM: form}, "4XX", "5XX"))  # fmt: skip
    for path, about, told in _LOOKS:
        add(path, "get", _operation(path, about, {_JSON: words.ref(told)}))
    for path, about, name in _OLLAMA:
        answers = {_JSON: words.ref(f"{name}Answer"), _LINES: {}}
        asked_by = {_JSON: words.ref(f"{name}Request")}
        add(path, "post", _operation(path, about, answers, asked_by, "4XX", "5XX"))
    for path, method, about in _ADMIN:
        thing = {_JSON: words.ref("Thing")} if method == "post" else None
        add(path, method, _operation(path, about, {_JSON: {}}, thing))
    for path, method, operation in _others():
        add(path, method, operation)
    for path in ("/v1/files", "/v1/batches"):
        paths[path]["get"]["parameters"] = [
            {"name": name, "in": "query", "schema": schema}
            for name, schema in (("limit", words.WHOLE), ("after", words.TEXT))
        ]
    return paths


def _others() -> list[tuple[str, str, dict[str, Any]]]:
    ready = _operation("/ready", "Whether any model can answer", {_JSON: words.ref("Ready")})
    ready["responses"]["503"] = ready["responses"]["200"]
    health = _operation("/health", "Whether the gateway lives", {_JSON: words.ref("Health")})
    hello = _operation("/", "What tools look for that want an Ollama", {_PLAIN: words.TEXT})
    about = "The version of Ollama's API that is spoken here"
    version = _operation("/api/version", about, {_JSON: words.ref("OllamaVersion")})
    for operation in (ready, health, hello, version):
        operation["security"] = []
    batch = {_JSON: words.ref("Batch")}
    file = {_JSON: words.ref("File")}
    upload = {_FORM: words.ref("FileForm")}
    order = {_JSON: words.ref("BatchRequest")}
    binary = {_BYTES: words.TEXT | {"format": "binary"}}
    deleted = {_JSON: words.ref("Deleted")}
    id = "/v1/files/{id}"
    return [
        ("/ready", "get", ready),
        ("/health", "get", health),
        ("/", "get", hello),
        ("/", "head", _without_body(hello)),
        ("/api/version", "get", version),
        ("/api/version", "head", _without_body(version)),
        ("/metrics", "get", _operation("/metrics", "Metrics, for Prometheus", {_PLAIN: {}})),
        ("/openapi.json", "get", _operation("/openapi.json", "This document", {_JSON: {}})),
        ("/v1/files", "post", _operation("/v1/files", "Upload a file", file, upload)),
        (id, "delete", _operation(id, "Delete a file", deleted)),
        (f"{id}/content", "get", _operation(id, "What is in a file", binary)),
        ("/v1/batches", "post", _operation("/v1/batches", "Order a batch", batch, order)),
        ("/v1/batches/{id}/cancel", "post", _operation("/v1", "Cancel a batch", batch)),
    ]


def _operation(
    path: str,
    about: str,
    told: dict[str, Any],
    asked: dict[str, Any] | None = None,
    *more: str,
) -> dict[str, Any]:
    """`more`: ranges of statuses that engines may answer with, in their own words."""
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": _content(told)}}
    shape = "Relayed" if more and not path.startswith("/api/") else _error_of(path)
    for status in _REFUSALS:
        responses[status] = {"$ref": f"#/components/responses/{shape}{status}"}
    for range in more:
        responses[range] = {"description": "What the engine says.", "content": {"*/*": {}}}
    operation: dict[str, Any] = {"summary": about, "responses": responses}
    if asked is not None:
        operation["requestBody"] = {"required": True, "content": _content(asked)}
    return operation


def _without_body(operation: dict[str, Any]) -> dict[str, Any]:
    """The same, asked with HEAD."""
    responses = operation["responses"] | {"200": {"description": "The answer's head."}}
    return operation | {"responses": responses}


def _refusals() -> dict[str, Any]:
    return {
        f"{shape}{status}": {"description": meaning, "content": _content({_JSON: words.ref(shape)})}
        for shape in ("Error", "Relayed", "OllamaError")
        for status, meaning in _REFUSALS.items()
    }


def _content(schemas: dict[str, Any]) -> dict[str, Any]:
    return {kind: {"schema": schema} for kind, schema in schemas.items()}


def _error_of(path: str) -> str:
    return "OllamaError" if path.startswith("/api/") else "Error"
