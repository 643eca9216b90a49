"""What one client may ask of an engine that all share."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.errors import BadRequest
from serve.gateway.body import read
from serve.gateway.safety import Bounds, check, check_asked

BOUNDS = Bounds(media_hosts=("images.example",))
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


def body(**more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES} | more).encode()


def part(**fields: Any) -> bytes:
    return body(messages=[{"role": "user", "content": [{"type": "text", "text": "see"}, fields]}])


def refused(raw: bytes, bounds: Bounds = BOUNDS) -> str | None:
    """The name of what is refused, "" for the body as a whole, None if it passes."""
    try:
        check(raw, bounds)
    except BadRequest as error:
        return error.param or ""
    return None


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"url": {}}}}}
CALLS = [
    {"role": "user", "content": [{"type": "text", "text": "see"}]},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"url": [1]}'}}]},
    {"role": "tool", "tool_call_id": "1", "content": '[{"\\"' * 50},
]  # fmt: skip
FINE: dict[str, bytes] = {
    "an agent at work": body(messages=CALLS * 50, tools=[TOOL] * 50),
    "an agent at work, at the bound": body(messages=CALLS * 50, tools=0)
        .replace(b'"tools": 0', b'"tools":' + b"[" * 63 + b"]" * 63),
    "plain": body(),
    "n at its bound": body(n=16),
    "null": body(n=None, stop=None, response_format=None),
    "logprobs as chat has it": body(logprobs=True, top_logprobs=20),
    "no bound asked for": body(max_tokens=-1, top_k=-1),
    "token ids": body(prompt=list(range(5000))),
    "two thousand prompts": body(input=["x"] * 2048),
    "a schema": body(response_format={"type": "json_schema", "json_schema": {"schema": {}}}),
    "unknown fields": body(brand_new={"deep": [1, {"er": 2}]}, vllm_xargs={"a": 1}),
    "a tool with a url": body(tools=[TOOL]),
    "a tool that was called with a url": body(
        messages=[
            {"role": "assistant", "content": [
                {"type": "tool_use", "name": "get", "input": {"url": "http://10.0.0.1/x"}}]},
            {"role": "assistant", "tool_calls": [
                {"function": {"name": "get", "arguments": '{"url": "file:///etc/passwd"}'}}]},
        ]
    ),
    "text that speaks of urls": body(
        messages=[{"role": "user", "content": '{"image_url": "file:///etc/passwd"}'}]
    ),
    "a picture as data": part(type="image_url", image_url={"url": "data:image/png;base64,AAAA"}),
    "a picture in base64": part(type="image", image="AAAA"),
    "from a host on the list": part(
        type="image_url", image_url={"url": "https://images.example/a.png"}
    ),
    "not JSON, which others refuse": b'{"n": ',
    "no object, which others refuse": b"[1, 2]",
    "brackets in text": body(messages=[{"role": "user", "content": '[{"\\"' * 500}]),
    "brackets in a part of text": part(type="text", text='[{"\\"' * 500),
    "brackets in much text": part(type="text", text='\\\\"[{"\\"' * 50_000),
    "brackets in a prompt": b'{"model":"m","prompt":"' + b'[{\\"' * 500 + b'"}',
    "many messages": body(messages=MESSAGES * 500),
    "many messages, with parts": body(messages=[{"content": [{"text": "x"}]}] * 500),
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_what_is_usual_passes(name: str) -> None:
    assert refused(FINE[name]) is None


@pytest.mark.parametrize(
    "raw", [b'{"model":"m","\xff":1,"n":1000000}', b'{"model":"m","\\ud800":1,"n":1000000}']
)
def test_a_key_that_is_no_text_hides_nothing(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="not valid JSON"):
        check_asked(read(raw), BOUNDS)


DEEP = b"[" * 65 + b"]" * 65
ESCAPED = b'"x", "im\\u0061ge_url": {"ur\\u006c": "http:\\/\\/h"}, "y"'

# Each is the shape of a published attack on an engine, or of one that suggests itself.
BAD: list[tuple[str, bytes]] = [
    ("n", body(n=17)),
    ("n", body(n=10**9)),
    ("n", body(n="100000")),
    ("n", body(n=1e9)),
    ("n", body(n=0)),
    ("n", body(n=-5)),
    ("n", b'{"model":"m","n":1,"n":1000000}'),
    ("n", b'{"model":"m","\\u006e":1000000}'),
    ("n", b'{"model":"m","n":' + b"9" * 5000 + b"}"),
    ("best_of", body(best_of=1000)),
    ("logprobs", body(logprobs=1000)),
    ("top_logprobs", body(top_logprobs=100_000)),
    ("prompt_logprobs", body(prompt_logprobs=-1)),
    ("prompt_logprobs", body(prompt_logprobs="-1")),
    ("min_tokens", body(min_tokens=2**40)),
    ("max_tokens", body(max_tokens=-(2**70))),
    ("max_tokens", body(max_tokens=10**400)),
    ("stop", body(stop=["x"] * 17)),
    ("stop_sequences", body(stop_sequences=["x"] * 10_000)),
    ("logit_bias", body(logit_bias={str(n): 1 for n in range(2000)})),
    ("allowed_token_ids", body(allowed_token_ids=list(range(2000)))),
    ("bad_words", body(bad_words=["w"] * 2000)),
    ("prompt", body(prompt=["x"] * 2049)),
    ("input", body(input=[[1]] * 2049)),
    ("guided_regex", body(guided_regex="(a{1,9999}){1,9999}")),
    ("guided_regex", body(guided_regex="a" * 70_000)),
    ("structured_outputs", body(structured_outputs={"regex": "(x{ 5000 })+"})),
    ("structured_outputs", body(structured_outputs={"grammar": "root ::= " + "a" * 70_000})),
    ("response_format", body(response_format={"json_schema": {"schema": {
        "properties": {"a": {"type": "string", "pattern": "^(.{0,100000})$"}}}}})),
    ("response_format", body(response_format={"json_schema": {"x": "y" * 70_000}})),
    ("text", body(text={"format": {"schema": {"enum": ["e" * 70_000]}}})),
    ("tools", body(tools=[{"function": {"name": "f", "description": "d" * 70_000}}])),
    ("kv_transfer_params", body(kv_transfer_params={"do_remote_prefill": True})),
    ("request_id", body(request_id="another's")),
    ("prompt_embeds", body(prompt_embeds="AAAA")),
    ("data_parallel_rank", body(data_parallel_rank=7)),
    ("mm_processor_kwargs", body(mm_processor_kwargs={"num_crops": 10**9})),
    ("media_io_kwargs", body(media_io_kwargs={"video": {"num_frames": 10**9}})),
    ("url", part(type="image_url", image_url={"url": "http://169.254.169.254/latest"})),
    ("url", part(type="image_url", image_url={"url": "file:///etc/passwd"})),
    ("url", part(type="image_url", image_url={"url": "FILE:/etc/passwd"})),
    ("url", part(type="image_url", image_url={"url": "https://images.example@10.0.0.1/"})),
    ("url", part(type="image_url", image_url={"url": "https://images.example\\@10.0.0.1/"})),
    ("url", part(type="image_url", image_url={"url": "https://images.example.evil.test/"})),
    ("url", part(type="image_url", image_url={"url": " https://10.0.0.1/"})),
    ("url", part(type="video_url", video_url={"url": "ftp://images.example/x"})),
    ("image_url", part(image_url="http://10.0.0.1/x")),
    ("image_url", part(type="input_image", image_url="https://10.0.0.1/x")),
    ("url", part(type="image", source={"type": "url", "url": "https://10.0.0.1/x"})),
    ("url", part(type="tool_result", content=[{"source": {"url": "https://10.0.0.1/x"}}])),
    ("url", body(messages=[{"content": {"image_url": {"url": "http://10.0.0.1/"}}}])),
    ("url", body(documents={"content": [{"image_url": {"url": "http://10.0.0.1/"}}]})),
    ("url", body(input=[{"content": [{"image_url": {"url": "http://10.0.0.1/"}}]}])),
    ("url", part().replace(b'"text", "text"', ESCAPED)),
    ("url", body(url="http://10.0.0.1/x")),
    ("", b'{"model":"m","x":' + b"[" * 65 + b"]" * 65 + b"}"),
    ("", b'{"model":"m","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}"),
    ("", b'{"model":"m","x":' + b"[" * 1_000_000),
    # The last of equal keys counts, but the engine reads all of them.
    ("", b'{"model":"m","messages":' + DEEP + b"," + body()[1:]),
    ("", b'{"model":"m","messages":[{"content":' + DEEP + b',"content":"x"}]}'),
    ("", b'{"model":"m","prompt":' + DEEP + b',"prompt":"x"}'),
    ("", body(messages=MESSAGES * 100, x=0).replace(b'"x": 0', b'"x":' + DEEP)),
    ("", body(messages=CALLS * 50, tools=0).replace(b'"tools": 0', b'"tools":[%b]' % DEEP)),
    ("", body(messages=CALLS * 50, tools=[TOOL] * 50, stop=0)
         .replace(b'"stop": 0', b'"stop":%b,"stop":[]' % DEEP)),
    ("", body(messages=CALLS).replace(b'"type"', b'"text":%b,"text":"","type"' % DEEP)),
    ("url", body(messages=[*CALLS, {"tool_calls": [{"extra": {"url": "http://10.0.0.1/"}}]}])),
    ("", body(messages=[{"role": "user", "content": "\xff"}]).replace(b"\\u00ff", b"\xff")
         .replace(b'"}]', b'","x":["\xff"]}]')),
    ("", body(stop="x").replace(b'"x"', b'["\xff"]')),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "raw"), BAD, ids=[f"{n}-{name}" for n, (name, _) in enumerate(BAD)]
)
def test_what_hurts_is_refused_by_name(name: str, raw: bytes) -> None:
    assert refused(raw) == name


def test_no_refusal_quotes_what_the_client_wrote() -> None:
    for _, raw in BAD:
        with pytest.raises(BadRequest) as error:
            check(raw.replace(b"10.0.0.1", b"canary.test").replace(b"yyyy", b"canary"), BOUNDS)
        assert "canary" not in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)  # fmt: skip
NAMES = st.sampled_from(["n", "stop", "messages", "input", "prompt", "tools", "response_format",
                         "logprobs", "url", "documents", "min_tokens", "x"])  # fmt: skip


@given(st.dictionaries(NAMES, JSON))
@settings(max_examples=300)
def test_any_json_is_passed_or_refused_and_nothing_else(fields: dict[str, Any]) -> None:
    refused(json.dumps(fields).encode())


def depth(value: Any) -> int:
    inner = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    )
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(st.dictionaries(NAMES, JSON), st.integers(1, 6))
@settings(max_examples=300)
def test_a_body_that_has_been_read_is_judged_alike(fields: dict[str, Any], most: int) -> None:
    # Of all JSON that hypothesis thinks of, Infinity alone is none.
    raw = json.dumps(fields | {"model": "m"}).replace("Infinity", "1").encode()
    asked, bounds = read(raw), Bounds(max_depth=most)
    try:
        check_asked(asked, bounds)
    except BadRequest as error:
        assert refused(raw, bounds) == (error.param or "")
    else:
        assert refused(raw, bounds) is None


PLAIN = st.sampled_from(["role", "content", "name"])


@given(st.lists(st.lists(st.tuples(PLAIN, JSON), max_size=4)), JSON, st.integers(1, 6))
@settings(max_examples=300)
def test_no_key_that_is_written_twice_hides_depth(
    messages: list[list[tuple[str, Any]]], value: Any, most: int
) -> None:
    shown = [
        "{" + ",".join(f"{json.dumps(key)}:{json.dumps(each)}" for key, each in pairs) + "}"
        for pairs in messages
    ]
    raw = '{"messages":%s,"messages":[%s]}' % (json.dumps(value), ",".join(shown))  # noqa: UP031
    deepest = max((1 + depth(each) for pairs in messages for _, each in pairs), default=0)
    real = 1 + max(depth(value), 1 + max(deepest, 1 if messages else 0))
    assert (refused(raw.encode(), Bounds(max_depth=most)) == "") == (real > most)


@given(JSON, st.integers(1, 6))
@settings(max_examples=300)
def test_the_depth_is_that_of_the_json(value: Any, most: int) -> None:
    raw = json.dumps({"x": value}).encode()
    assert (refused(raw, Bounds(max_depth=most)) == "") == (depth({"x": value}) > most)
