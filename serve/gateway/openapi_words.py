"""The schemas of our OpenAPI document: what we look at ourselves, and nothing that only engines
know. Whatever else is in a body passes, so no schema forbids it.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
TRUTH: Schema = {"type": "boolean"}
ANYTHING: Schema = {}
_TEXT_OR_NONE: Schema = {"type": ["string", "null"]}
_WHOLE_OR_NONE: Schema = {"type": ["integer", "null"]}


def thing(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """An object that may have more than is named here."""
    made: Schema = {"type": "object", "properties": properties}
    return made | {"required": list(required)} if required else made


def many(schema: Schema, least: int = 0) -> Schema:
    """A list of at least `least` of them."""
    made: Schema = {"type": "array", "items": schema}
    return made | {"minItems": least} if least else made


def ref(name: str) -> Schema:
    """The schema of this name in ASKED or TOLD."""
    return {"$ref": f"#/components/schemas/{name}"}


def _exactly(**properties: Schema) -> Schema:
    return thing(tuple(properties), **properties)


def _page(record: str) -> Schema:
    return thing(
        ("object", "data"),
        object={"const": "list"},
        data=many(ref(record)),
        first_id=_TEXT_OR_NONE,
        last_id=_TEXT_OR_NONE,
        has_more=TRUTH,
    )


_MODEL = TEXT | {"minLength": 1, "description": "A name or an alias out of /v1/models."}
_MESSAGE = thing(("role",), role=TEXT, content={"type": ["string", "array", "null"]})
_STREAM = TRUTH | {"default": False, "description": "Answer with server-sent events."}
_MOST = {"type": "integer", "minimum": 1, "description": "Tokens of the answer at most."}
_USAGE_WISH = {"stream_options": thing(include_usage=TRUTH)}
_COMMON = {"model": _MODEL, "stream": _STREAM}
_PROMPT = {"oneOf": [TEXT, many({"oneOf": [TEXT, many(WHOLE, 1)]}, 1)]}

_OLLAMA = {"model": TEXT | {"minLength": 1}, "stream": TRUTH, "options": {"type": "object"}}

ASKED: dict[str, Schema] = {
    "ChatRequest": thing(
        ("model", "messages"), messages=many(_MESSAGE, 1), max_tokens=_MOST,
        max_completion_tokens=_MOST, tools=many(thing()), response_format=thing(),
        cache_salt=TEXT, **_COMMON, **_USAGE_WISH,
    ),
    "CompletionRequest": thing(
        ("model", "prompt"), prompt=_PROMPT, max_tokens=_MOST, cache_salt=TEXT, **_COMMON,
        **_USAGE_WISH,
    ),
    "EmbeddingRequest": thing(("model", "input"), model=_MODEL, input=_PROMPT),
    "ResponsesRequest": thing(
        ("model", "input"), input={"oneOf": [TEXT, many(thing(), 1)]}, max_output_tokens=_MOST,
        **_COMMON,
    ),
    "MessagesRequest": thing(
        ("model", "max_tokens", "messages"), messages=many(_MESSAGE, 1), max_tokens=_MOST,
        **_COMMON,
    ),
    "CountRequest": thing(("model", "messages"), model=_MODEL, messages=many(_MESSAGE, 1)),
    "AnyRequest": thing(("model",), model=_MODEL),
    "Thing": thing(),
    "BatchRequest": thing(
        ("input_file_id", "endpoint", "completion_window"),
        input_file_id=TEXT,
        endpoint=TEXT,
        completion_window=TEXT,
        metadata={"type": ["object", "null"], "additionalProperties": TEXT, "maxProperties": 16},
    ),
    "FileForm": thing(
        ("file", "purpose"), file=TEXT | {"format": "binary"}, purpose={"const": "batch"}
    ),
    "OllamaChatRequest": thing(
        ("model",), messages=many(thing(("role",), role=TEXT, content=TEXT)),
        format={"oneOf": [{"const": "json"}, thing()]}, tools=many(thing()), **_OLLAMA,
    ),
    "OllamaGenerateRequest": thing(("model",), prompt=TEXT, system=TEXT, raw=TRUTH, **_OLLAMA),
    "OllamaEmbedRequest": thing(
        ("model", "input"), model=_MODEL, input={"oneOf": [TEXT, many(TEXT, 1)]}
    ),
    "OllamaEmbeddingsRequest": thing(("model", "prompt"), model=_MODEL, prompt=TEXT),
    "OllamaShowRequest": thing(("model",), model=_MODEL),
}  # fmt: skip

_FILE = _exactly(
    id=TEXT, object={"const": "file"}, bytes=WHOLE, created_at=WHOLE, expires_at=WHOLE,
    filename=TEXT, purpose=TEXT, status=TEXT,
)  # fmt: skip
_BATCH = _exactly(
    id=TEXT, object={"const": "batch"}, endpoint=TEXT, input_file_id=TEXT, completion_window=TEXT,
    status={"enum": ["validating", "failed", "in_progress", "finalizing", "completed", "expired",
                     "cancelling", "cancelled"]},
    output_file_id=_TEXT_OR_NONE, error_file_id=_TEXT_OR_NONE, created_at=WHOLE, expires_at=WHOLE,
    in_progress_at=_WHOLE_OR_NONE, completed_at=_WHOLE_OR_NONE,
    request_counts=_exactly(total=WHOLE, completed=WHOLE, failed=WHOLE),
)  # fmt: skip
_CARD = _exactly(
    id=TEXT, object={"const": "model"}, created=WHOLE, owned_by=TEXT, root=TEXT,
    max_model_len=WHOLE, state=TEXT,
)  # fmt: skip
_OLLAMA_CARD = thing(
    ("name", "model", "digest", "details"), name=TEXT, model=TEXT, digest=TEXT, details=thing()
)

TOLD: dict[str, Schema] = {
    "ChatAnswer": thing(("choices",), choices=many(thing()), usage=thing()),
    "EmbeddingAnswer": thing(("data",), data=many(thing())),
    "ResponsesAnswer": thing(("output",), output=many(thing())),
    "MessagesAnswer": thing(("content",), content=many(thing())),
    "CountAnswer": _exactly(input_tokens=WHOLE),
    "AnyAnswer": thing(),
    "Model": _CARD,
    "Models": _exactly(object={"const": "list"}, data=many(ref("Model"))),
    "Ready": _exactly(ready=TRUTH, draining=TRUTH, models=thing()),
    "Health": _exactly(status=TEXT),
    "File": _FILE,
    "Files": _page("File"),
    "Deleted": _exactly(id=TEXT, object=TEXT, deleted={"const": True}),
    "Batch": _BATCH,
    "Batches": _page("Batch"),
    "OllamaChatAnswer": thing(("model", "done"), model=TEXT, message=thing(), done=TRUTH),
    "OllamaGenerateAnswer": thing(("model", "done"), model=TEXT, response=TEXT, done=TRUTH),
    "OllamaEmbedAnswer": thing(("embeddings",), embeddings=many(many({"type": "number"}))),
    "OllamaEmbeddingsAnswer": thing(("embedding",), embedding=many({"type": "number"})),
    "OllamaTags": _exactly(models=many(_OLLAMA_CARD)),
    "OllamaShowAnswer": _exactly(details=thing(), model_info=thing(), capabilities=many(TEXT)),
    "OllamaVersion": _exactly(version=TEXT),
    "Error": _exactly(
        error=thing(
            ("message",), message=TEXT, type=TEXT, param={"type": ["string", "null"]},
            code={"type": ["string", "integer", "null"]},
        )
    ),
    "AnthropicError": _exactly(type={"const": "error"}, error=_exactly(type=TEXT, message=TEXT)),
    "OllamaError": _exactly(error=TEXT),
    # Engines' own errors pass as they are; those with other shapes than ours, too.
    "Relayed": {"anyOf": [ref("Error"), ref("AnthropicError"), thing()]},
}  # fmt: skip
