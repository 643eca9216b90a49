"""Forms with files, as clients send them."""

import contextlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import BadRequest
from serve.gateway.multipart import Part, read_form


def form(**parts: tuple[str | None, bytes]) -> tuple[bytes, bytes]:
    """Content type and body, as httpx sends them."""
    request = httpx.Request("POST", "http://x", files=parts)
    return request.headers["content-type"].encode(), request.read()


def test_a_form() -> None:
    parts = read_form(*form(purpose=(None, b"batch"), file=("a b.jsonl", b"{}\n{}\r\n")))
    assert parts == [Part("purpose", None, b"batch"), Part("file", "a b.jsonl", b"{}\n{}\r\n")]


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
def test_any_content(contents: list[bytes]) -> None:
    kind, body = form(**{f"f{i}": (f"{i}", content) for i, content in enumerate(contents)})
    assert [part.content for part in read_form(kind, body)] == contents


def test_quotes_in_names() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a\\"b"\r\n\r\nx\r\n--b--'
    assert read_form(b'multipart/form-data; boundary="b"', body) == [Part("file", 'a"b', b"x")]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"application/json", b"{}"),
        (b"multipart/form-data", b"--b--"),
        (b"multipart/form-data; boundary=b", b""),
        (b"multipart/form-data; boundary=b", b"--b\r\n\r\nno end"),
        (b"multipart/form-data; boundary=b", b"--b\r\nno head\r\n--b--"),
        (b"multipart/form-data; boundary=b", b"--b\r\nContent-Type: a\r\n\r\nx\r\n--b--"),
        (b"multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n" * 40 + b"--b--"),
    ],
)
def test_what_is_no_form(kind: bytes, body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_form(kind, body)


@given(st.binary(max_size=200))
def test_anything_is_a_form_or_refused(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        read_form(b"multipart/form-data; boundary=-", body)
