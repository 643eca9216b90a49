"""What is told in one look is what a closer look tells."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.errors import BadRequest
from serve.gateway.body import Asked, _read_any, read
from serve.gateway.safety import Bounds, check, check_asked
from serve.gateway.splice import rewritten

TEXTS = (
    st.sampled_from(["x", "", "é", '"messages": [', "}]", '"}]', "\\", "[{", "model"]) | st.text()
)
NUMBERS = st.sampled_from(
    [0, 1, 2, 5, 16, 17, -1, -2, 2**31 - 1, 2**31, 2**70, 1.0, 2.5, 1e300, True]
)
ODD = st.none() | NUMBERS | TEXTS | st.sampled_from([[], {}, [1], {"url": "http://h"}, ["x"] * 20])
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}), max_size=2)
CALLS = st.just([{"id": "1", "type": "function", "function": {"name": "f", "arguments": "[]"}}])
PLAIN = st.fixed_dictionaries(
    {"role": st.just("user"), "content": TEXTS | PARTS},
    optional={"tool_calls": CALLS, "name": TEXTS},
)
ODD_MESSAGE = st.dictionaries(st.sampled_from(["content", "image_url", "x"]), ODD)
TAME = ("stream", "max_tokens", "temperature", "n", "stop", "user", "stream_options", "seed")
OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "stream": st.booleans(),
    "stream_options": st.dictionaries(st.just("include_usage") | st.just("x"), st.booleans()),
    "max_tokens": st.integers(1, 9) | NUMBERS, "n": st.integers(1, 9) | NUMBERS,
    "max_completion_tokens": NUMBERS, "top_k": NUMBERS,
    "min_tokens": NUMBERS, "temperature": NUMBERS, "seed": NUMBERS, "stop": TEXTS, "user": TEXTS,
    "chat_template_kwargs": st.just({"enable_thinking": False}),
    "tools": st.just([{"type": "function", "function": {"name": "f", "anyOf": [{"a": "b"}]}}]),
    "cache_salt": TEXTS, "logprobs": NUMBERS, "url": TEXTS, "request_id": TEXTS, "x": ODD,
}  # fmt: skip
KEYS = {key: json.dumps(key) for key in ["model", "messages", *OTHERS]}
ESCAPED = {"messages": '"\\u006dessages"', "model": '"mod\\u0065l"', "n": '"\\u006e"'}


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Of chats: most are as usual, some have what is odd, twice, elsewhere, or written oddly."""
    is_tame = draw(st.booleans())
    names = draw(st.lists(st.sampled_from(TAME if is_tame else sorted(OTHERS)), max_size=4))
    pairs: list[tuple[str, Any]] = [(name, draw(OTHERS[name])) for name in names]
    if not is_tame:
        pairs.append((draw(st.sampled_from(sorted(KEYS))), draw(ODD)))
    messages = st.lists(PLAIN if is_tame else PLAIN | ODD_MESSAGE, min_size=1, max_size=3)
    wanted = [("messages", messages), ("model", TEXTS)]
    wanted += draw(st.sampled_from([[], [], [], [], wanted[:1], wanted[1:]]))
    for name, values in wanted:
        pairs.insert(draw(st.integers(0, len(pairs))), (name, draw(values)))
    is_ascii, separators = draw(st.booleans()), draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    shown = []
    for key, value in pairs:
        name = ESCAPED.get(key, KEYS[key]) if draw(st.integers(0, 19)) == 19 else KEYS[key]
        text = json.dumps(value, ensure_ascii=is_ascii, separators=separators)
        shown.append(f"{name}{separators[1]}{text}")
    text = "{" + separators[0].join(shown) + "}"
    body = draw(st.sampled_from(["", "", "", " "])).encode() + text.encode("utf-8", "replace")
    if draw(st.integers(0, 9)) == 9:  # and one byte that is another
        at = draw(st.integers(0, len(body) - 1))
        body = (
            body[:at]
            + draw(st.sampled_from([b"", b"]", b"[", b"\xff", b'"', b","]))
            + body[at + 1 :]
        )
    return body


def told(reader: Any, body: bytes) -> Asked | str:
    try:
        asked: Asked = reader(body)
    except BadRequest as error:
        return str(error)
    return asked


def refused(check: Any, what: Any, bounds: Bounds) -> tuple[str | None, str] | None:
    try:
        check(what, bounds)
    except BadRequest as error:
        return error.param, str(error)
    return None


BOUNDS = st.sampled_from([Bounds(), Bounds(max_depth=5), Bounds(max_n=1), Bounds(max_depth=3)])
CHANGES = {"model": b'"new"', "cache_salt": b'"ab"', "stream_options": b'{"include_usage":true}'}


@given(bodies(), BOUNDS, st.sets(st.sampled_from(sorted(CHANGES)), min_size=1))
@settings(max_examples=500)
def test_one_look_tells_what_a_closer_look_does(
    body: bytes, bounds: Bounds, keys: set[str]
) -> None:
    asked, closely = told(read, body), told(_read_any, body)
    if not isinstance(asked, Asked) or not isinstance(closely, Asked):
        assert asked == closely
        return
    fields = [name for name in Asked.__struct_fields__ if name not in ("looked", "frame")]
    assert [(type(getattr(asked, name)), getattr(asked, name)) for name in fields] == [
        (type(getattr(closely, name)), getattr(closely, name)) for name in fields
    ]
    assert refused(check_asked, asked, bounds) == refused(check, body, bounds)
    changes = {key: CHANGES[key] for key in CHANGES if key in keys}
    assert asked.rewritten(changes) == closely.rewritten(changes)
    for model, salt, asks in ((asked.model, b"ab", False), (asked.model, b"", False),
                              ("new", b"ab", True), (asked.model, b"ab", True)):  # fmt: skip
        found = asked.for_engine(model, salt, asks)
        assert found == closely.for_engine(model, salt, asks)
        same = {} if model == asked.model else {"model": b'"new"'}
        same |= {"cache_salt": b'"ab"'} if salt else {}
        same |= {"stream_options": closely.with_usage()} if asks else {}
        assert found == closely.rewritten(same)


@given(bodies(), st.sets(st.sampled_from(sorted(CHANGES)), min_size=1), st.booleans())
@settings(max_examples=300)
def test_a_long_body_is_rewritten_as_a_short_one(body: bytes, keys: set[str], twice: bool) -> None:
    long = json.dumps([{"role": "user", "content": "\\\n" * 2500, "model": "m"}]).encode()
    body = body.replace(b'"messages":', b'"messages":%b,"messages":' % long, 1) if twice else body
    body = body.replace(b'"x"', b'"x%b"' % (b"y" * 5000)).replace(b"[{", long[:-1] + b",{", 1)
    asked = told(_read_any, body)
    if isinstance(asked, str) or asked.looked is None:
        return
    changes = {key: CHANGES[key] for key in CHANGES if key in keys}
    present = {key: bytes(asked.looked[key]) for key in CHANGES if key in asked.looked}
    assert asked.rewritten(changes) == rewritten(body, changes, present)


SAID = [{"role": "user", "content": "x"}]
USUAL = {"model": "m", "messages": SAID, "max_tokens": 5, "temperature": 1, "stream": True}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(USUAL),
        json.dumps(USUAL, separators=(",", ":")),
        json.dumps(dict(reversed(USUAL.items()))),
        json.dumps(USUAL | {"stream_options": {"include_usage": True}, "n": 2, "stop": "x"}),
        json.dumps(USUAL | {"messages": [{"role": "user", "content": [{"text": "]["}]}]}),
    ],
)
def test_what_is_usual_is_told_in_one_look(body: str) -> None:
    assert read(body.encode()).frame


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":7,"messages":[{"content":"x"}]}',
        b'{"model":"m","messages":[{"content":"x"}],"messages":[{"content":"y"}]}',
        b'{"model":"m","messages":[{"content":"x"}],"\\u006dessages":[{"content":"y"}]}',
        b'{"model":"m","messages":[{"content":"x"}]5}',
        b'{"model":"\\"messages":[{"content":"x"}],"messages":[{"content":"x"}]}',
        b'{"model":"m","x":"\\"messages":[{"content":"x"}]"}',
        b'{"model":"m","messages":[{"content":"x"}],"url":"http://h"}',
        b'{"model":"m","messages":[{"content":"x"}],"user":' + b"[" * 65 + b'{"x":"x"}]' * 65,
        b'"messages":]"}]',
        b'"messages":"}]',
        b'"messages":[',
    ],
)
def test_what_only_seems_usual_is_looked_at_closely(body: bytes) -> None:
    asked = told(read, body)
    assert isinstance(asked, str) or not asked.frame
    assert asked == told(_read_any, body)
