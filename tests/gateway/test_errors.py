import dataclasses
import json
from typing import Any

import pytest

from serve import errors
from serve.errors import InhouseError
from serve.gateway.errors import TABLE, answer, event

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
_EXAMPLES: dict[str, Any] = {
    "str": "canary", "int": 3, "float": 1.5, "bool": True,
    "tuple[str, ...]": ("canary",), "tuple[tuple[str, int], ...]": (("canary", 1),),
}  # fmt: skip


def example(kind: type[InhouseError]) -> InhouseError:
    facts = {}
    for field in dataclasses.fields(kind):
        name = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
        name = str(field.type) if name not in _EXAMPLES else name
        facts[field.name] = _EXAMPLES.get(name.removesuffix(" | None"), "canary")
    return kind(**facts)


@pytest.mark.parametrize("kind", errors.leaves())
def test_every_error_has_an_answer(kind: type[InhouseError]) -> None:
    error = example(kind)
    status, headers, content = answer(error, CHAT)
    told = json.loads(content)["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert all(isinstance(told[key], str) for key in ("message", "type", "code"))
    assert dict(headers)[b"content-length"] == str(len(content)).encode()
    assert (b"retry-after" in dict(headers)) is hasattr(error, "retry_after_s")
    ours = json.loads(answer(error, MESSAGES)[2])
    assert ours["type"] == "error" and set(ours["error"]) == {"type", "message"}
    assert json.loads(event(error, CHAT).removeprefix(b"data: ")) == json.loads(content)
    if not issubclass(kind, errors.RequestError | errors.UnknownModel):
        assert status in (500, 503) and b"canary" not in content


def test_the_table_has_leaves_only() -> None:
    assert set(TABLE) == set(errors.leaves())


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (
            errors.ModelNotServed("qwen", ("qwen3-8b", "qwen2-7b")),
            404,
            {
                "message": "The model 'qwen' is not served here. "
                "Did you mean 'qwen3-8b' or 'qwen2-7b'?",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            },
        ),
        (
            errors.BadRequest("The body must name a model.", "model"),
            400,
            {
                "message": "The body must name a model.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "bad_request",
            },
        ),
        (
            errors.ModelNotReady("m", "restarting", 5),
            503,
            {
                "message": "The model 'm' is not ready yet: restarting. Please try again.",
                "type": "server_error",
                "param": "model",
                "code": "model_not_ready",
            },
        ),
    ],
)
def test_the_facts_become_a_sentence(
    error: InhouseError, status: int, told: dict[str, str]
) -> None:
    assert answer(error, CHAT)[0] == status
    assert json.loads(answer(error, CHAT)[2])["error"] == told


def test_what_a_client_sent_is_repeated_in_part_only() -> None:
    assert len(answer(errors.ModelNotServed("x" * 10_000), CHAT)[2]) < 400
    assert len(answer(errors.RouteNotFound("GET", "/" * 10_000), CHAT)[2]) < 400
