"""The slow way through the gateway: events that a client did not ask for, words that it did. Pure.

Only streams whose usage we asked for ourselves come this way, and clients that want DeepSeek's
words: the header `x-inhouse-usage: deepseek` adds `prompt_cache_hit_tokens` and
`prompt_cache_miss_tokens` to every `usage` of OpenAI's shape, in whole answers and in streams.
"""

import re

import msgspec

from serve.gateway.splice import rewritten

_END = re.compile(rb"\r?\n\r?\n")  # of an event
_ENDS = (b"\n\n", b"\n\r\n")
_DATA = re.compile(rb"^data:[ ]?", re.MULTILINE)
_EMPTY = (b'"choices":[]', b'"choices": []')
USAGE = b'"usage"'
_USAGE_MARKS = (USAGE,)
_NOTHING = (b"", b"null")


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    prompt_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: int | None = None


class _Chunk(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()
    choices: msgspec.Raw = msgspec.Raw()


_chunk = msgspec.json.Decoder(_Chunk).decode
_usage = msgspec.json.Decoder(_Usage).decode


class EventFilter:
    """Feed it what comes; it gives back what the client gets. Only whole events leave it.

    `drops_usage`: the event that has nothing but the usage stays here. `adds_cache`: DeepSeek's
    words are added.
    """

    __slots__ = ("_adds_cache", "_drops_usage", "_marks", "_rest")

    def __init__(self, drops_usage: bool, adds_cache: bool) -> None:
        self._drops_usage = drops_usage
        self._adds_cache = adds_cache
        self._marks = _USAGE_MARKS if adds_cache else _EMPTY
        self._rest = b""  # the beginning of an event

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept back: then whole events without `USAGE` leave as they come."""
        return not self._rest

    def feed(self, piece: bytes) -> bytes:
        """The events that end in `piece`, as far as they are for the client."""
        if self._rest:
            piece = self._rest + piece
            self._rest = b""
        if not piece.endswith(b"\n\n"):
            end = 0
            for found in _END.finditer(piece):
                end = found.end()
            piece, self._rest = piece[:end], piece[end:]
        for mark in self._marks:
            if piece.find(mark) >= 0:  # `in` is slower for bytes
                return self._filtered(piece)
        return piece

    def close(self) -> bytes:
        """What is left when nothing more comes: an event without its end."""
        rest, self._rest = self._rest, b""
        return rest

    def _filtered(self, events: bytes) -> bytes:
        """Only events with a mark are looked at: most have none."""
        kept, start = [], 0
        while (place := self._next(events, start)) >= 0:
            begin = start
            for end_of_event in _ENDS if b"\r" in events else _ENDS[:1]:
                before = events.rfind(end_of_event, start, place)
                if before >= 0:
                    begin = max(begin, before + len(end_of_event))
            found = _END.search(events, place)
            end = found.end() if found else len(events)
            kept += [events[start:begin], self._event(events[begin:end])]
            start = end
        kept.append(events[start:])
        return b"".join(kept)

    def _next(self, events: bytes, start: int) -> int:
        places = [events.find(mark, start) for mark in self._marks]
        return min((place for place in places if place >= 0), default=-1)

    def _event(self, event: bytes) -> bytes:
        mark = _DATA.search(event)
        if mark is None:
            return event
        text = event[mark.end() :].rstrip(b"\r\n")
        try:
            chunk = _chunk(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return event  # no JSON, as "[DONE]": none of ours
        if bytes(chunk.usage) in _NOTHING:
            return event
        if self._drops_usage and b"".join(bytes(chunk.choices).split()) == b"[]":
            return b""
        if self._adds_cache:
            return event.replace(text, with_cache_words(text), 1)
        return event


def with_cache_words(answer: bytes) -> bytes:
    """A JSON answer whose `usage` tells the cached part of the prompt as DeepSeek does."""
    try:
        old = bytes(_chunk(answer).usage)
        usage = _usage(old) if old not in _NOTHING else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return answer
    if usage is None or usage.prompt_cache_hit_tokens is not None:
        return answer
    details = usage.prompt_tokens_details
    hit = min((details.cached_tokens or 0) if details else 0, usage.prompt_tokens)
    words = b'"prompt_cache_hit_tokens":%d,"prompt_cache_miss_tokens":%d' % (
        hit,
        usage.prompt_tokens - hit,
    )
    new = b"%b,%b}" % (old[: old.rindex(b"}")], words)
    return rewritten(answer, {"usage": new}, {"usage": old})
