"""What a client did not ask for stays here, however it is cut; everything else passes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.gateway.filter import EventFilter, with_cache_words

USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 16},
}
TEXTS = ('"choices":[]', '"choices": [], "usage": {}', "\n\ndata: x", "\r\n\r\n", "é")


def event(record: object, end: str = "\n\n", spaces: bool = True) -> bytes:
    text = json.dumps(record, separators=None if spaces else (",", ":"), ensure_ascii=False)
    return f"data: {text}{end}".encode()


def parts(texts: list[str], end: str = "\n\n", spaces: bool = True) -> tuple[bytes, bytes, bytes]:
    """A stream: what comes before the usage, the usage, what comes after it."""
    chunks: list[Any] = [
        {"choices": [], "prompt_filter_results": []},
        {"choices": [], "usage": None},
    ]
    chunks += [{"choices": [{"delta": {"content": text}}], "usage": None} for text in texts]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE})
    before = b"".join(event(chunk, end, spaces) for chunk in chunks) + f": ping{end}".encode()
    usage = event({"id": "x", "choices": [], "usage": USAGE}, end, spaces)
    return before, usage, f"data: [DONE]{end}".encode()


def filtered(stream: bytes, cuts: list[int], **kind: bool) -> bytes:
    sieve = EventFilter(**{"drops_usage": True, "adds_cache": False} | kind)
    places = [0, *sorted(cuts), len(stream)]
    pieces = [stream[here:after] for here, after in zip(places, places[1:], strict=False)]
    return b"".join(sieve.feed(piece) for piece in pieces) + sieve.close()


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("spaces", [True, False])
def test_only_the_usage_is_dropped_at_every_cut(end: str, spaces: bool) -> None:
    before, usage, after = parts(["Paris", *TEXTS], end, spaces)
    stream = before + usage + after
    for place in range(len(stream) + 1):
        assert filtered(stream, [place]) == before + after
    assert filtered(stream, list(range(len(stream)))) == before + after


@given(
    st.lists(st.sampled_from(TEXTS) | st.text(), max_size=4),
    st.lists(st.integers(0, 10_000), max_size=6),
    st.sampled_from(["\n\n", "\r\n\r\n"]),
)
def test_no_text_is_dropped(texts: list[str], cuts: list[int], end: str) -> None:
    before, usage, after = parts(texts, end)
    stream = before + usage + after
    places = [cut % (len(stream) + 1) for cut in cuts]
    assert filtered(stream, places) == before + after
    assert filtered(stream, places, drops_usage=False) == stream


@given(st.lists(st.binary(max_size=30)))
def test_what_is_no_json_passes(pieces: list[bytes]) -> None:
    sieve = EventFilter(drops_usage=True, adds_cache=True)
    assert b"".join(map(sieve.feed, pieces)) + sieve.close() == b"".join(pieces)


def test_deepseeks_words_are_added_at_every_cut() -> None:
    before, usage, after = parts(["Paris", *TEXTS])
    stream = before + usage + after
    for place in range(len(stream) + 1):
        told = filtered(stream, [place], drops_usage=False, adds_cache=True)
        lines = [line for line in told.split(b"\n\n") if b"cache_hit" in line]
        assert len(lines) == 2  # the chunk that stops tells it here too
        record = json.loads(lines[1].removeprefix(b"data: "))
        words = {"prompt_cache_hit_tokens": 16, "prompt_cache_miss_tokens": 14}
        assert record == {"id": "x", "choices": [], "usage": USAGE | words}


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        ({"prompt_tokens": 9}, (0, 9)),
        ({"prompt_tokens": 9, "prompt_tokens_details": None}, (0, 9)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 99}}, (9, 0)),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 3}, None),
        ({"total_tokens": 9}, None),
        (None, None),
    ],
)
def test_a_whole_answer_tells_its_cached_part(usage: Any, words: tuple[int, int] | None) -> None:
    text = '"usage": {"prompt_tokens": 9}'
    record = {"choices": [{"message": {"content": text}}], "usage": usage, "x": 1.0}
    told = json.loads(with_cache_words(json.dumps(record).encode()))
    if words is not None:
        named = dict(
            zip(("prompt_cache_hit_tokens", "prompt_cache_miss_tokens"), words, strict=True)
        )
        record["usage"] = usage | named
    assert told == record
