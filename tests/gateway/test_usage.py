"""Tokens are found wherever engines put them, and never in what a model wrote."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.gateway.noting import StreamNotes, WholeNotes
from serve.gateway.usage import Usage, find_usage, usage_of

CHAT = {
    "prompt_tokens": 30, "total_tokens": 37, "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 16},
    "completion_tokens_details": {"reasoning_tokens": 3},
}  # fmt: skip
RESPONSE = {
    "input_tokens": 30, "input_tokens_details": {"cached_tokens": 16, "cached_tokens_per_turn": []},
    "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 37,
}  # fmt: skip
MESSAGE = {"input_tokens": 14, "output_tokens": 7, "cache_read_input_tokens": 16}
ALL = Usage(30, 7, 16, 3)
NOWHERE = [0].__setitem__
DECOY = {"prompt_tokens": 999, "completion_tokens": 999, "total_tokens": 999}
TEXTS = (
    json.dumps({"usage": DECOY}),
    '"usage":{"prompt_tokens":999}}',
    'say \\"usage": {"prompt_tokens": 999}',
    '\n\ndata: {"choices":[],"usage":{"prompt_tokens":999}}\n\n',
)


def event(record: object, name: str = "", spaces: bool = True) -> bytes:
    separators = None if spaces else (",", ":")
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(record, separators=separators)}\n\n".encode()


def chat_stream(texts: list[str], spaces: bool = True) -> bytes:
    chunks: list[Any] = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    # A tool's arguments, and what a server of somebody else may add, are deeper.
    chunks.append({"choices": [{"delta": {"usage": DECOY}}]})
    chunks.append({"choices": [], "usage": CHAT})
    return b"".join(event(chunk, spaces=spaces) for chunk in chunks) + b"data: [DONE]\n\n"


def message_stream(texts: list[str]) -> bytes:
    start = {"type": "message_start", "message": {"usage": MESSAGE | {"output_tokens": 0}}}
    deltas = [{"type": "content_block_delta", "delta": {"text": text}} for text in texts]
    end = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 7}}
    return b"".join(
        [event(start, "message_start")]
        + [event(delta, "content_block_delta") for delta in deltas]
        + [event(end, "message_delta"), event({"type": "message_stop"}, "message_stop")]
    )


def response_stream(texts: list[str]) -> bytes:
    deltas = [{"type": "response.output_text.delta", "delta": text} for text in texts]
    whole = {"output": [{"text": "".join(texts)}], "usage": RESPONSE, "user": None}
    end = {"response": whole, "sequence_number": 3, "type": "response.completed"}
    return b"".join(event(delta, delta["type"]) for delta in deltas) + event(
        end, "response.completed"
    )


STREAMS = {
    "/v1/chat/completions": (chat_stream, ALL),
    "/v1/messages": (message_stream, Usage(30, 7, 16)),
    "/v1/responses": (response_stream, ALL),
}


@pytest.mark.parametrize("route", STREAMS)
def test_a_stream_may_be_cut_at_every_byte(route: str) -> None:
    make, expected = STREAMS[route]
    stream = make(["Paris", *TEXTS])
    for place in range(len(stream) + 1):
        notes = StreamNotes(route, NOWHERE, 0)
        ends = [notes.note(part) for part in (stream[:place], stream[place:]) if part]
        assert notes.usage() == expected
        assert notes.events == stream.count(b"\n\n")
        assert any(ends)


@pytest.mark.parametrize("route", STREAMS)
def test_nobody_sees_the_end_of_a_stream_before_it_is_noticed(route: str) -> None:
    """Byte by byte, what has passed before the end was noticed does not look like one."""
    stream = STREAMS[route][0](["Paris", *TEXTS])
    notes = StreamNotes(route, NOWHERE, 0)
    passed = b""
    for place in range(len(stream)):
        if notes.note(stream[place : place + 1]):
            break
        passed += stream[place : place + 1]
    else:
        pytest.fail("the end was not noticed")
    last = passed.split(b"\n\n")[-1]
    assert b"[DONE]" not in passed and not last.endswith(b"}")
    assert passed.count(b"Paris") >= 1


@given(
    st.sampled_from(sorted(STREAMS)),
    st.lists(st.sampled_from(TEXTS) | st.text(), max_size=5),
    st.lists(st.integers(0, 4000), max_size=6),
)
def test_no_text_is_taken_for_the_usage(route: str, texts: list[str], cuts: list[int]) -> None:
    make, expected = STREAMS[route]
    stream = make(texts)
    notes = StreamNotes(route, NOWHERE, 0)
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for here, after in zip(places, places[1:], strict=False):
        if here < after:
            notes.note(stream[here:after])
    assert notes.usage() == expected


def wholes(text: str) -> dict[str, tuple[Any, Usage | None]]:
    choice = {"message": {"content": text, "usage": DECOY}}
    return {
        "chat": ({"id": "x", "choices": [choice], "usage": CHAT, "prompt_logprobs": None}, ALL),
        "first": ({"usage": CHAT, "choices": [choice]}, ALL),
        "response": ({"output": [choice], "usage": RESPONSE, "user": None}, ALL),
        "message": ({"content": [choice], "usage": MESSAGE}, Usage(30, 7, 16)),
        "embedding": ({"data": [], "usage": {"prompt_tokens": 5, "total_tokens": 5}}, Usage(5, 0)),
        "rerank": ({"usage": {"total_tokens": 5}, "results": [choice]}, Usage(5, 0)),
        "none": ({"choices": [choice]}, None),
        "null": ({"choices": [choice], "usage": None}, None),
        "words": ({"choices": [choice], "usage": {"prompt_tokens": "9"}}, None),
        "negative": ({"usage": {"prompt_tokens": -9, "completion_tokens": 2}}, Usage(0, 2)),
    }


@pytest.mark.parametrize("case", sorted(wholes("")))
@pytest.mark.parametrize("indent", [None, 2])
def test_a_whole_answer_tells_its_usage(case: str, indent: int | None) -> None:
    for text in ("Paris", *TEXTS):
        record, expected = wholes(text)[case]
        notes = WholeNotes()
        content = json.dumps(record, indent=indent).encode()
        for place in range(0, len(content), 40):
            notes.note(content[place : place + 40])
        assert notes.usage() == expected


COUNTS = st.none() | st.integers(-3, 20)
DETAILS = st.none() | st.fixed_dictionaries(
    {}, optional={"cached_tokens": COUNTS, "reasoning_tokens": COUNTS, "audio_tokens": COUNTS}
)
SAID = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": COUNTS, "completion_tokens": COUNTS, "total_tokens": COUNTS,
        "input_tokens": COUNTS, "output_tokens": COUNTS, "cache_read_input_tokens": COUNTS,
        "cache_creation_input_tokens": COUNTS, "prompt_tokens_details": DETAILS,
        "completion_tokens_details": DETAILS, "input_tokens_details": DETAILS,
        "output_tokens_details": DETAILS,
    },
)  # fmt: skip


@given(SAID, st.sampled_from(TEXTS))
def test_whatever_an_engine_says_is_understood_by_the_rules(said: Any, text: str) -> None:
    answer = json.dumps({"choices": [{"text": text, "usage": DECOY}], "usage": said}).encode()
    assert usage_of(answer) == find_usage(b"data: " + answer) == by_the_rules(said)


def by_the_rules(said: dict[str, Any]) -> Usage:
    def natural(name: str, details: str = "") -> int:
        record = (said.get(details) or {}) if details else said
        return max(0, record.get(name) or 0)

    names = ("prompt_tokens", "input_tokens", "output_tokens")
    if all(said.get(name) is None for name in names):
        return Usage(natural("total_tokens"))
    is_chat = said.get("prompt_tokens") is not None
    fresh, made = ("prompt", "completion") if is_chat else ("input", "output")
    prompt, output = natural(f"{fresh}_tokens"), natural(f"{made}_tokens")
    cached = natural("cached_tokens", f"{fresh}_tokens_details")
    if not is_chat and said.get("cache_read_input_tokens") is not None:
        cached = natural("cache_read_input_tokens")
        prompt += cached + natural("cache_creation_input_tokens")
    reasoning = natural("reasoning_tokens", f"{made}_tokens_details")
    return Usage(prompt, output, min(cached, prompt), min(reasoning, output))


def test_of_a_large_answer_the_end_is_kept() -> None:
    notes = WholeNotes()
    notes.note(b'{"data":["')
    for _ in range(300):
        notes.note(b"x" * 4096)
    notes.note(b'"],"usage":{"prompt_tokens":5}}')
    assert notes.usage() == Usage(5, 0)
    assert sum(map(len, notes._parts)) < 300_000


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(tail: bytes) -> None:
    assert find_usage(tail) is None or b'"usage"' in tail
    find_usage(b'"usage":' + tail)
