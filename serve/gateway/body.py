"""Request bodies: read within a bound, understood only as far as needed."""

import re
from typing import Any

import msgspec
from starlette.types import Receive

from serve.errors import BadRequest, BodyTooLarge
from serve.gateway.splice import rewritten

_UNSET = msgspec.Raw()

Looked = dict[str, msgspec.Raw]  # the members of a body's top level


# What decides over a request's way is decoded; all else stays the bytes that came. The last of
# several equal keys counts, as for engines.
_look = msgspec.json.Decoder(Looked).decode
_any = msgspec.json.Decoder().decode
_NULL = msgspec.Raw(b"null")


class Asked(msgspec.Struct, frozen=True):
    """A body, as far as we understand it.

    `prompt`: the bytes of messages, prompt or input as they came. `most_output`: tokens of one of
    `answers`, None: as many as the engine likes. `salt`, `stream_options`: JSON, empty if the
    body has none. `looked`: its members; None: it is not JSON.
    """

    body: bytes
    model: str
    is_stream: bool
    prompt: bytes
    most_output: int | None
    answers: int
    salt: bytes
    stream_options: bytes
    looked: Looked | None = None

    def wants_usage(self) -> bool:
        """Whether a stream is to end with the usage, by OpenAI's `include_usage`."""
        options = _any(self.stream_options) if self.stream_options else None
        return isinstance(options, dict) and bool(options.get("include_usage"))

    def with_usage(self) -> bytes:
        """The `stream_options` that ask for it, beside what the client asked."""
        if not self.stream_options:
            return b'{"include_usage":true}'
        options = _any(self.stream_options)
        options = options if isinstance(options, dict) else {}
        return msgspec.json.encode(options | {"include_usage": True})

    def rewritten(self, changes: dict[str, bytes]) -> bytes:
        """The body with other values for `model`, `cache_salt` and `stream_options`."""
        present = {}
        if self.salt:
            present["cache_salt"] = self.salt
        if self.stream_options:
            present["stream_options"] = self.stream_options
        if "model" in changes and self.looked is not None:
            present["model"] = bytes(self.looked["model"])
        return rewritten(self.body, changes, present)


NOTHING = Asked(b"", "", True, b"", None, 1, b"", b"")


def read(body: bytes) -> Asked:
    """What a JSON body asks for; BadRequest if it is none, or names no model."""
    try:
        looked = _look(body)
        find = looked.get
        model = _any(find("model", _NULL))
        is_stream = bytes(find("stream", _NULL)) == b"true"
        most = (
            _number(find("max_completion_tokens"))
            or _number(find("max_tokens"))
            or _number(find("max_output_tokens"))
        )
        answers = _number(find("n"))
    except msgspec.ValidationError:
        raise BadRequest("The body must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Neither the message nor the cause may carry on what the client wrote.
        raise BadRequest("The body is not valid JSON.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    if model is None:
        raise BadRequest("The body must name a model.", param="model")
    if not isinstance(model, str):
        raise BadRequest("The model must be a string.", param="model")
    return Asked(
        body,
        model,
        is_stream,
        bytes(find("messages") or find("prompt") or find("input") or b""),
        most if isinstance(most, int) and most > 0 else None,
        answers if isinstance(answers, int) and answers > 0 else 1,
        bytes(find("cache_salt", _UNSET)),
        bytes(find("stream_options", _UNSET)),
        looked,
    )


def _number(raw: msgspec.Raw | None) -> Any:
    """None if it is not there. What is no number is the engine's to refuse."""
    return None if raw is None else _any(raw)


async def read_body(receive: Receive, content_length: bytes | None, limit: int) -> bytes | None:
    """The whole body; None if the client left before it was complete.

    BodyTooLarge as soon as more than `limit` bytes are announced or have come.
    """
    if content_length is not None and int(content_length) > limit:
        raise BodyTooLarge(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message["body"]
    if not message["more_body"] and len(body) <= limit:
        return body
    parts, length = [body], len(body)
    while message["more_body"] and length <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message["body"])
        length += len(parts[-1])
    if length > limit:
        raise BodyTooLarge(limit)
    return b"".join(parts)


_BOUNDARY = re.compile(rb'multipart/form-data;.*boundary=(?:"([^"]{1,70})"|([^;, "]{1,70}))', re.I)
_NAME = re.compile(
    rb'^content-disposition:[^\r\n]*;[ \t]*name="?model"?[ \t]*(?:;|\r|$)', re.I | re.M
)
_LONGEST_NAME = 1024  # bytes


def read_form(body: bytes, content_type: bytes) -> Asked:
    """What a multipart body asks for; BadRequest if it does not name one model."""
    found = _BOUNDARY.match(content_type)
    if found is None:
        raise BadRequest("The body must be multipart/form-data.")
    names = []
    for part in body.split(b"--" + (found[1] or found[2])):
        head, separator, value = part.partition(b"\r\n\r\n")
        if separator and len(head) < _LONGEST_NAME and _NAME.search(head):
            names.append(value.removesuffix(b"\r\n"))
    if len(names) != 1 or len(names[0]) > _LONGEST_NAME:
        raise BadRequest("The body must name one model.", param="model")
    try:
        model = names[0].decode()
    except UnicodeDecodeError:
        raise BadRequest("The model must be a string.", param="model") from None
    return Asked(body, model, False, b"", None, 1, b"", b"")
