import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import BadRequest, BodyTooLarge
from serve.gateway.body import read, read_body


def model_of(body: bytes) -> str:
    return read(body).model


def with_model(body: bytes, name: str) -> bytes:
    return read(body).rewritten({"model": json.dumps(name).encode()})


WHITE = st.sampled_from(["", " ", "\n\t ", "\r\n"])
KEYS = st.sampled_from(["model", "messages", 'say "model', "\\model", "modèle"]) | st.text()
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["org/old", '"model":"org/old"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, str]:
    """A JSON object with at least one top-level `model`, however written; and the last's value."""
    old = draw(st.sampled_from(["org/old", "é\n", ""]) | st.text())
    pairs = draw(st.lists(st.tuples(KEYS, VALUES), max_size=4))
    for _ in range(draw(st.integers(1, 2))):
        pairs.insert(draw(st.integers(0, len(pairs))), ("model", old))
    pairs = [(key, old if key == "model" else value) for key, value in pairs]
    parts = []
    for key, value in pairs:
        name = json.dumps(key, ensure_ascii=draw(st.booleans()))
        if key == "model" and draw(st.booleans()):
            name = '"mod\\u0065l"'
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
        parts.append(f"{draw(WHITE)}{name}{draw(WHITE)}:{draw(WHITE)}{text}{draw(WHITE)}")
    return f"{draw(WHITE)}{{{','.join(parts)}}}{draw(WHITE)}".encode(), old


@given(bodies(), st.sampled_from(["new", 'quo"te', "ü"]) | st.text())
def test_only_the_model_that_counts_is_replaced(case: tuple[bytes, str], new: str) -> None:
    body, old = case
    assert model_of(body) == old
    changed = with_model(body, new)
    assert model_of(changed) == new
    # repr, for 1 == 1.0 == True; a duplicate that does not count may stay or go.
    assert repr(json.loads(changed)) == repr(json.loads(body) | {"model": new})


@given(bodies())
def test_no_other_byte_changes_where_the_key_is_plain(case: tuple[bytes, str]) -> None:
    body = b'{"model" :"org/old","x":1e400, "y":' + case[0] + b' , "x" : -0.0 }'
    assert with_model(body, "new") == body.replace(b"org/old", b"new", 1)


@pytest.mark.parametrize(
    ("body", "problem", "param"),
    [
        (b"", "not valid JSON", None),
        (b"{", "not valid JSON", None),
        (b'{"model":"m"', "not valid JSON", None),
        (b'{"model":"m"} x', "not valid JSON", None),
        (b"model=m", "not valid JSON", None),
        (b"\xff\xfe", "not valid JSON", None),
        (b'{"model":"\xff"}', "not valid JSON", None),
        (b'{"model":"m","stream":true,"stream_options":{"a":"\xff"}}', "not valid JSON", None),
        (b'{"model":"\\ud800"}', "not valid JSON", None),
        (b'{"model":"m","x":"\\ud83d"}', "not valid JSON", None),  # half an emoji
        (b'{"model":"m","x":NaN}', "not valid JSON", None),
        (b"[]", "must be a JSON object", None),
        (b'"model"', "must be a JSON object", None),
        (b"{}", "must name a model", "model"),
        (b'{"model":null}', "must name a model", "model"),
        (b'{"x":{"model":"m"}}', "must name a model", "model"),
        (b'{"model":7}', "must be a string", "model"),
        (b'{"model":["m"]}', "must be a string", "model"),
        (b'{"model":"m","x":' + b"[" * 100_000, "nested too deeply", None),
    ],
)
def test_what_names_no_model_is_refused(body: bytes, problem: str, param: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        model_of(body)
    assert problem in caught.value.problem and caught.value.param == param


@given(st.binary(max_size=60))
def test_no_bytes_at_all_do_worse_than_a_refusal(body: bytes) -> None:
    with pytest.raises(BadRequest):
        model_of(body)


def read_parts(parts: list[bytes], length: bytes | None = None, is_left: bool = False) -> Any:
    messages = [
        {"type": "http.request", "body": part, "more_body": is_left or number < len(parts) - 1}
        for number, part in enumerate(parts)
    ] + [{"type": "http.disconnect"}]

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    return asyncio.run(read_body(receive, length, limit=10)), len(messages)


@pytest.mark.parametrize("parts", [[b""], [b"0123456789"], [b"0123", b"456", b"789"]])
def test_a_body_is_read_to_its_end(parts: list[bytes]) -> None:
    assert read_parts(parts) == (b"".join(parts), 1)


def test_a_client_that_leaves_has_no_body() -> None:
    assert read_parts([b"012"], is_left=True) == (None, 0)


@pytest.mark.parametrize(
    ("parts", "length"), [([b"x"], b"11"), ([b"01234567890"], None), ([b"012345"] * 2, b"10")]
)
def test_a_body_beyond_the_limit_is_refused(parts: list[bytes], length: bytes | None) -> None:
    with pytest.raises(BodyTooLarge):
        read_parts(parts, length)
