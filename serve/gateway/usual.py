"""Chat requests as nearly all are: a model, messages that are text, and some numbers.

What such a request asks for, and that it can hurt nobody, is told by types alone, in one look at
its bytes. Pure.
"""

import secrets
from typing import Annotated

import msgspec


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    type: str | None = None
    text: str | None = None


class _Function(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, forbid_unknown_fields=True):
    id: str | None = None
    type: str | None = None
    index: int | None = None
    function: _Function | None = None


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """A message that is text: no deeper than it seems, however often a key is written, and without
    media."""

    role: str | None = None
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[_ToolCall] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None


PLAIN_DEPTH = 6  # of a body with such messages, there
LARGEST = 2**31 - 1  # number of tokens that a body may name

# Stands where the messages were. Of this process alone: nobody can write it into a body, so where
# a decoder finds it, there it was put.
_MARK = 2**61 + secrets.randbits(61)
MARK = b"%d" % _MARK

_Mark = Annotated[int, msgspec.Meta(ge=_MARK, le=_MARK)]
_Natural = Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]
_Length = Annotated[int, msgspec.Meta(ge=-1, le=LARGEST)]


class _StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class Frame(msgspec.Struct, forbid_unknown_fields=True):
    """A body without its messages. Every field's type is one that no bound speaks against: what
    differs is not refused, but looked at with more care. None: it is not there."""

    model: str
    messages: _Mark
    stream: bool = False
    stream_options: _StreamOptions | msgspec.UnsetType = msgspec.UNSET
    max_tokens: _Natural | None = None
    max_completion_tokens: _Natural | None = None
    n: _Natural = 1
    min_tokens: _Length | None = None
    top_k: _Length | None = None
    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | None = None
    user: str | None = None
    logprobs: bool | None = None
    ignore_eos: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, bool | str | None] | None = None


look_at_frame = msgspec.json.Decoder(Frame).decode
look_at_plain = msgspec.json.Decoder(list[_Plain]).decode

# By which the messages are looked for. Where they end otherwise, nothing is wrong: these are the
# ends of text, and of parts or calls; tools end otherwise, and are not to be taken for messages.
OPENINGS = (b'"messages":', b'"messages": ')
ENDINGS = (b'"}]', b"]}]")
