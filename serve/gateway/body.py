"""Request bodies: read within a bound, understood only as far as needed."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from starlette.types import Receive

from serve.errors import BadRequest, BodyTooLarge
from serve.gateway.splice import rewritten
from serve.gateway.usual import ENDINGS, MARK, OPENINGS, look_at_frame, look_at_plain

_UNSET = msgspec.Raw()

Looked = dict[str, msgspec.Raw]  # the members of a body's top level


# What decides over a request's way is decoded; all else stays the bytes that came. The last of
# several equal keys counts, as for engines.
_look = msgspec.json.Decoder(Looked).decode
_any = msgspec.json.Decoder().decode
_NULL = msgspec.Raw(b"null")
_LONG_BYTES = 4096  # of a prompt that is left out when a key is looked for
_START_BYTES = 64  # of it, by which it is looked for


class Asked(msgspec.Struct, frozen=True):
    """A body, as far as we understand it.

    `prompt`: the bytes of messages, prompt or input as they came. `most_output`: tokens of one of
    `answers`, None: as many as the engine likes. `salt`, `stream_options`: JSON, empty if the
    body has none. `looked`: its members; None: it is not JSON, or has a `frame`: that is all of it
    with `MARK` for `prompt`, of a body so usual that only its numbers need a look.
    `place`: where a form's model begins and ends.
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
    frame: bytes = b""
    place: tuple[int, int] = (0, 0)

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
        # Without what is long, a key is found in a moment.
        frame = self.frame or (_without(self.body, self.prompt) if "model" in changes else b"")
        text = frame or self.body
        present = {}
        if self.salt:
            present["cache_salt"] = self.salt
        if self.stream_options:
            present["stream_options"] = self.stream_options
        if "model" in changes:
            looked = _look(text) if self.looked is None else self.looked
            present["model"] = bytes(looked["model"])
        if not frame:
            return rewritten(text, changes, present)
        start, _, end = rewritten(frame, changes, present).partition(MARK)
        return b"".join((start, self.prompt, end))

    def for_engine(self, model: str, salt: bytes, asks_usage: bool) -> bytes:
        """The body for an engine that knows the model as `model`. `salt`: hexadecimal, its
        `cache_salt` if there is one; `asks_usage`: a stream is to end with the usage."""
        if model == self.model and not asks_usage:
            if not salt:
                return self.body
            if self.frame and self.body.startswith(b"{"):  # as `rewritten`, at once
                return b"".join((b'{"cache_salt":"', salt, b'",', memoryview(self.body)[1:]))
        changes = {}
        if model != self.model:
            changes["model"] = msgspec.json.encode(model)
        if salt:
            changes["cache_salt"] = b'"%b"' % salt
        if asks_usage:
            changes["stream_options"] = self.with_usage()
        return self.rewritten(changes)

    def renamed(self, model: str) -> bytes:
        """The form with another model; every other byte stays."""
        if model == self.model:
            return self.body
        start, end = self.place
        return b"".join((self.body[:start], model.encode(), memoryview(self.body)[end:]))


def _without(body: bytes, prompt: bytes) -> bytes:
    """An object with `MARK` for its prompt; empty if that is short, or not found at once."""
    if len(prompt) < _LONG_BYTES:
        return b""
    start = body.find(prompt[:_START_BYTES])
    if not body.startswith(prompt, start):
        return b""
    frame = b"".join((body[:start], MARK, memoryview(body)[start + len(prompt) :]))
    try:
        looked = _look(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # it was a part of something else
        return b""
    return frame if _prompt(looked) == MARK else b""


def _prompt(looked: Looked) -> bytes:
    find = looked.get
    return bytes(find("messages") or find("prompt") or find("input") or b"")


NOTHING = Asked(b"", "", True, b"", None, 1, b"", b"")


def read(body: bytes) -> Asked:
    """What a JSON body asks for; BadRequest if it is none, or names no model."""
    # Where a list is the messages, and all around it is an object with a mark in its place, the
    # whole is that object with those messages: that is JSON's grammar. So each byte of text is
    # looked at once only. (Without a list, there are too few bytes for one between the two.)
    start, end = body.find(b"["), body.rfind(b"]") + 1
    if body.endswith(OPENINGS, 0, start) and body.endswith(ENDINGS, 0, end):
        frame = b"".join((body[:start], MARK, body[end:]))
        prompt = body[start:end]
        try:
            usual = look_at_frame(frame)
            look_at_plain(prompt)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _read_any(body)  # with more care; and that tells what is wrong, if it is
        return Asked(
            body,
            usual.model,
            usual.stream,
            prompt,
            usual.max_completion_tokens or usual.max_tokens,
            usual.n,
            b"",
            bytes(_look(frame)["stream_options"]) if usual.stream_options else b"",
            None,
            frame,
        )
    return _read_any(body)


def _read_any(body: bytes) -> Asked:
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
        _any(find("stream_options", _NULL))  # which is read later, where nothing may go wrong
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
        _prompt(looked),
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


# One boundary, and nothing beside it that could change how an engine reads the form.
_BOUNDARY = re.compile(
    rb'multipart/form-data[ \t]*;[ \t]*(?:charset="?utf-8"?[ \t]*;[ \t]*)?'
    rb'boundary=(?:"([^"\\]{1,70})"|([^;, "]{1,70}))[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?',
    re.I,
)
_NAME = re.compile(
    rb'^content-disposition:[^\r\n]*;[ \t]*name[ \t]*=[ \t]*"?model"?[ \t]*(?:;|\r|$)', re.I | re.M
)
_LONGEST_NAME = 1024  # bytes


def read_form(body: bytes, content_type: bytes) -> Asked:
    """What a multipart body asks for; BadRequest if it does not name one model.

    A boundary counts wherever it stands, though engines want it at the start of a line: so what
    one of them may take for a second model is refused.
    """
    found = _BOUNDARY.fullmatch(content_type.strip())
    if found is None:
        raise BadRequest("The body must be multipart/form-data.")
    places = list(_models(body, b"--" + (found[1] or found[2])))
    if len(places) != 1 or places[0] is None:
        raise BadRequest("The body must name one model.", param="model")
    try:
        model = body[slice(*places[0])].decode()
    except UnicodeDecodeError:
        raise BadRequest("The model must be a string.", param="model") from None
    return Asked(body, model, False, b"", None, 1, b"", b"", place=places[0])


def _models(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int] | None]:
    """Where the value of each part begins and ends that is called model; None for what is such a
    part for some readers only, or is too long."""
    start = body.find(delimiter)
    while start >= 0:
        head = start + len(delimiter)
        following = body.find(delimiter, head)
        end = len(body) if following < 0 else following
        value = body.find(b"\r\n\r\n", head, end) + 4
        if value >= 4 and _NAME.search(body[head : value - 4]):
            is_part = (
                (start == 0 or body.endswith(b"\r\n", 0, start))
                and body.startswith(b"\r\n", head)
                and body.endswith(b"\r\n", value, end)
                and body.startswith((b"\r\n", b"--"), end + len(delimiter))
                and end - value <= _LONGEST_NAME
            )
            yield (value, end - 2) if is_part else None
        start = following
