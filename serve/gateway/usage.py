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
    """Tokens; `cached` are among `input`, `reasoning` among `output`. None is less than 0."""

    input: int = 0
    output: int = 0
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
    prompt = counts.prompt_tokens
    if prompt is None:
        return _usage_in_other_words(counts)
    output = counts.completion_tokens or 0
    told, thought = counts.prompt_tokens_details, counts.completion_tokens_details
    cached = (told.cached_tokens or 0) if told else 0
    reasoning = (thought.reasoning_tokens or 0) if thought else 0
    if 0 <= cached <= prompt and 0 <= reasoning <= output:  # as it should be
        return Usage(prompt, output, cached, reasoning)
    return _sane(prompt, output, cached, reasoning)


def _usage_in_other_words(counts: _Counts) -> Usage:
    prompt, output = counts.input_tokens, counts.output_tokens
    if prompt is None and output is None:
        return _sane(counts.total_tokens or 0, 0, 0, 0)  # rerankers only tell the sum
    told, thought = counts.input_tokens_details, counts.output_tokens_details
    cached = (told.cached_tokens or 0) if told else 0
    reasoning = (thought.reasoning_tokens or 0) if thought else 0
    if counts.cache_read_input_tokens is not None:
        # Anthropic's input is what was neither read from the cache nor written into it.
        cached = max(0, counts.cache_read_input_tokens)
        prompt = max(0, prompt or 0) + cached + max(0, counts.cache_creation_input_tokens or 0)
    return _sane(prompt or 0, output or 0, cached, reasoning)


def _sane(prompt: int, output: int, cached: int, reasoning: int) -> Usage:
    prompt, output = max(0, prompt), max(0, output)
    return Usage(prompt, output, min(max(0, cached), prompt), min(max(0, reasoning), output))
