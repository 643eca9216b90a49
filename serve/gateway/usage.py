"""The tokens that an engine says an answer took, found in the last bytes of the answer. Pure.

A model may write `"usage": {…}` into its text, and does so when asked. What counts is a member
of the answer's own object: in JSON a text cannot hold a quote that is not escaped, and what
follows a member of the outermost object (or of the one in `response` or `message`) completes a
valid object when an opening is put before it. Text and deeper objects do not.
"""

import msgspec

# Of the end of a stream; the usage and what engines put after it are shorter.
TAIL_BYTES, LONG_TAIL_BYTES = 512, 1024
_KEY = b'"usage"'
_MOST_TRIES = 8


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Counts(msgspec.Struct):
    """OpenAI's names (of chats and of responses) and Anthropic's."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    usage: _Counts | None = None


class _Nested(msgspec.Struct):
    inner: _Answer


_decode = msgspec.json.Decoder(_Answer).decode
_decode_nested = msgspec.json.Decoder(_Nested).decode


class Usage(msgspec.Struct, frozen=True):
    """Tokens; `cached` are among `input`, `reasoning` among `output`. None: not said."""

    input: int | None = None
    output: int | None = None
    cached: int = 0
    reasoning: int = 0


def usage_of(answer: bytes) -> Usage | None:
    """The usage of an answer in one piece."""
    try:
        counts = _decode(answer).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return _usage(counts) if counts is not None else None


def find_usage(tail: bytes) -> Usage | None:
    """The last usage in the end of an answer, of a whole one or of a stream of events."""
    place = len(tail)
    for _ in range(_MOST_TRIES):
        place = tail.rfind(_KEY, 0, place)
        if place < 0:
            return None
        end = tail.find(b"\n", place)  # an event's data is one line; a whole answer may have many
        counts = _read(tail[place : end if end >= 0 else len(tail)])
        if counts is None and end >= 0:
            counts = _read(tail[place:])
        if counts is not None:
            return _usage(counts)
    return None


def merged(first: Usage | None, last: Usage | None) -> Usage | None:
    """Anthropic tells the input at the beginning of a stream, and the output at its end."""
    if first is None or last is None:
        return last or first
    if last.input:
        return last
    return Usage(first.input, last.output, first.cached, last.reasoning)


def _read(text: bytes) -> _Counts | None:
    for opening, decode in ((b"{", _decode), (b'{"inner":{', _decode_nested)):
        try:
            answer = decode(opening + text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        counts = answer.inner.usage if isinstance(answer, _Nested) else answer.usage
        if counts is not None:
            return counts
    return None


def _usage(counts: _Counts) -> Usage:
    said = (counts.prompt_tokens, counts.input_tokens, counts.output_tokens)
    if said == (None, None, None):
        return Usage(_natural(counts.total_tokens), 0)  # rerankers only tell the sum
    is_chat = counts.prompt_tokens is not None
    told = counts.prompt_tokens_details if is_chat else counts.input_tokens_details
    thought = counts.completion_tokens_details if is_chat else counts.output_tokens_details
    cached = _natural(told.cached_tokens) if told else 0
    fresh = counts.prompt_tokens if is_chat else counts.input_tokens
    prompt = _natural(fresh)
    if counts.cache_read_input_tokens is not None and not is_chat:
        # Anthropic's input is what was neither read from the cache nor written into it.
        cached = _natural(counts.cache_read_input_tokens)
        prompt += cached + _natural(counts.cache_creation_input_tokens)
    output = _natural(counts.completion_tokens if is_chat else counts.output_tokens)
    reasoning = _natural(thought.reasoning_tokens) if thought else 0
    return Usage(prompt, output, min(cached, prompt), min(reasoning, output))


def _natural(count: int | None) -> int:
    return max(0, count or 0)
