"""The model that a form names: found where engines find it, and nothing else is ever changed."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import BadRequest
from serve.gateway.body import read_form
from serve.gateway.multipart import read_form as read_strictly

TYPE = b"multipart/form-data; boundary=XX"
HEAD = b'Content-Disposition: form-data; name="model"\r\n\r\n'
BOUNDARIES = st.sampled_from(["XX", "-" * 24 + "1f", "a'b(c)+_,-./:=?", "x" * 70, "a b"])
NAMES = st.sampled_from(["file", "language", "xmodel", "models", "mode", "prompt"])
QUOTES = st.sampled_from(['"', ""])
SPACES = st.sampled_from(["", " ", "\t "])


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, bytes, bytes, bytes]:
    """A content type, and a form as what is before the model's value, that, and what is after."""
    boundary = draw(BOUNDARIES)
    quote = '"' if set(boundary) & set(",: ") else draw(QUOTES)
    line = b"--" + boundary.encode()
    near = st.sampled_from(
        [line[1:], line + b"x", b"\r\n", HEAD, b"\r\n\r\n", line[:-1], b"name=model"]
    )
    content = st.lists(st.binary(max_size=20) | near.filter(lambda each: line not in each))
    contents = content.map(b"".join).filter(lambda each: line not in each + b"\r\n")
    before, after = b"", b""
    for _ in range(draw(st.integers(0, 3))):
        name, mark = draw(NAMES), draw(QUOTES)
        more = draw(st.sampled_from(["", '; filename="model"', '; filename="a b.wav"']))
        head = f"content-disposition: form-data; name={mark}{name}{mark}{more}\r\n"
        head += draw(st.sampled_from(["", "content-type: audio/wav\r\n"]))
        part = b"\r\n" + head.encode() + b"\r\n" + draw(contents) + b"\r\n" + line
        before, after = (before + part, after) if draw(st.booleans()) else (before, after + part)
    mark, space = draw(QUOTES), draw(SPACES)
    name = draw(st.sampled_from(["Content-Disposition", "content-disposition"]))
    head = f"\r\n{name}: form-data;{space}name{space}={space}{mark}model{mark}{space}\r\n\r\n"
    value = draw(st.sampled_from(["m", "org/old", "é", ""]) | st.text(max_size=9)).encode()
    value = b"m" if line in b"\r\n" + value + b"\r\n" else value
    kind = f"multipart/form-data; boundary={quote}{boundary}{quote}".encode()
    end = draw(st.sampled_from([b"--\r\n", b"--"]))
    return kind, line + before + head.encode(), value, b"\r\n" + line + after + end


@given(forms(), st.sampled_from(["new", "ü", "base:adapter", ""]) | st.text(max_size=9))
def test_only_the_value_of_the_model_changes(
    form: tuple[bytes, bytes, bytes, bytes], new: str
) -> None:
    kind, before, value, after = form
    asked = read_form(before + value + after, kind)
    assert asked.model == value.decode()
    assert asked.renamed(new) == before + new.encode() + after
    assert asked.renamed(asked.model) is asked.body


PIECES = st.sampled_from(
    [b"--XX", b"\r\n", b"\r\n--XX", b"--", b"--XX--", HEAD, b"a", b"\r\n\r\n", b"\r", b"\n", b" ",
     b'content-disposition: form-data; name = model ; filename="x"\r\n\r\n',
     b'content-disposition: form-data; name="x"; name=model\r\n\r\n',
     b'content-disposition: form-data; x="' + b"x" * 1100 + b'"; name="model"\r\n\r\n']
)  # fmt: skip


@given(st.lists(PIECES, max_size=14).map(b"".join))
def test_no_other_reader_finds_another_model(tail: bytes) -> None:
    body = b"--XX\r\n" + HEAD + b"ours" + tail
    with contextlib.suppress(BadRequest):
        asked = read_form(body, TYPE)
        found = [part.content for part in read_strictly(TYPE, body) if part.name == "model"]
        assert set(found) <= {asked.model.encode()}


ONE = b"--XX\r\n" + HEAD + b"a\r\n--XX"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (TYPE, ONE + b"\r\n" + HEAD + b"b\r\n--XX--"),
        (TYPE, ONE + b'\r\ncontent-disposition: form-data; name = "model"\r\n\r\nb\r\n--XX--'),
        (TYPE, ONE + b'\r\nx: %b\r\n%bb\r\n--XX--' % (b"x" * 2000, HEAD)),
        (TYPE, ONE + b'\r\ncontent-disposition: form-data; name="f"\r\n\r\n.--XX\r\n' + HEAD),
        (TYPE, ONE + b"a\r\n--XX--"),
        (TYPE, b"--XX\r\n" + HEAD + b"a--XX--"),
        (TYPE, b"--XX\r\n" + HEAD + b"--XX--"),
        (TYPE, b"--XX\r\n" + HEAD + b"a\r\n"),
        (TYPE, b"x--XX\r\n" + HEAD + b"a\r\n--XX--"),
        (TYPE, b"--XXY\r\n" + HEAD + b"a\r\n--XXY--"),
        (TYPE, b"--XX\r\n" + HEAD + b"\xff\r\n--XX--"),
        (TYPE, b"--XX\r\n" + HEAD + b"a" * 2000 + b"\r\n--XX--"),
        (TYPE + b'; x="boundary=YY"', ONE + b"--"),
        (b"multipart/form-data; boundary=YY; boundary=XX", ONE + b"--"),
        (TYPE + b"; charset=utf-7", ONE + b"--"),
        (b"multipart/mixed; boundary=XX", ONE + b"--"),
    ],
)  # fmt: skip
def test_what_readers_may_take_for_different_models_is_refused(kind: bytes, body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_form(body, kind)


def test_boundaries_as_clients_write_them() -> None:
    for kind in (
        b'Multipart/Form-Data; boundary="XX"', b"multipart/form-data;boundary=XX",
        b"multipart/form-data; charset=UTF-8; boundary=XX", TYPE + b"; charset=utf-8",
    ):  # fmt: skip
        assert read_form(ONE + b"--", kind).model == "a"
