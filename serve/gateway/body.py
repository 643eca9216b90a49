"""Request bodies: read within a bound, understood only as far as needed, changed by a splice."""

import re
from typing import Any

import msgspec
from starlette.types import Receive

from serve.errors import BadRequest, BodyTooLarge


class _Peek(msgspec.Struct):
    model: Any = msgspec.UNSET


class _RawPeek(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw()


_peek = msgspec.json.Decoder(_Peek).decode
_raw_peek = msgspec.json.Decoder(_RawPeek).decode
_all_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def read_body(receive: Receive, content_length: bytes | None, limit: int) -> bytes | None:
    """The whole body; None if the client left before it was complete.

    BodyTooLarge as soon as more than `limit` bytes are announced or have come.
    """
    if content_length is not None and int(content_length) > limit:
        raise BodyTooLarge(limit)
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message["body"])
        length += len(parts[-1])
        if length > limit:
            raise BodyTooLarge(limit)
        if not message["more_body"]:
            return parts[0] if len(parts) == 1 else b"".join(parts)


def model_of(body: bytes) -> str:
    """The value of the top-level key `model`; BadRequest if there is none."""
    try:
        model = _peek(body).model
    except msgspec.ValidationError:
        raise BadRequest("The body must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Neither the message nor the cause may carry on what the client wrote.
        raise BadRequest("The body is not valid JSON.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    if model is msgspec.UNSET or model is None:
        raise BadRequest("The body must name a model.", param="model")
    if not isinstance(model, str):
        raise BadRequest("The model must be a string.", param="model")
    return model


def with_model(body: bytes, name: str) -> bytes:
    """A body that `model_of` took, with another model; every other byte stays as it is.

    The value is looked for by its bytes. What was found is taken only if the body then names the
    new model: a text like it, nested elsewhere or in a duplicate that does not count, leaves the
    model that counts unchanged. Where that fails (an escaped key, decoys on both sides), the top
    level is written anew around its values' own bytes.
    """
    value = msgspec.json.encode(name)
    pattern = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*(' + re.escape(_raw_model(body)) + rb")")
    for found in (pattern.search(body), _last(pattern, body)):
        if found is not None:
            spliced = body[: found.start(1)] + value + body[found.end(1) :]
            if _peek(spliced).model == name:
                return spliced
    return msgspec.json.encode(_all_raw(body) | {"model": msgspec.Raw(value)})


def _raw_model(body: bytes) -> bytes:
    return bytes(_raw_peek(body).model)


def _last(pattern: re.Pattern[bytes], body: bytes) -> re.Match[bytes] | None:
    start = body.rfind(b'"model"')
    return pattern.match(body, start) if start >= 0 else None
