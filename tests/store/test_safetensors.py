"""A header that lies about its data is never believed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import UnsafeWeights
from serve.store.safetensors import BadHeader, check_file, check_header
from tests.store.models import safetensors

Header = dict[str, dict[str, Any]]
BYTES_PER = {"U8": 1, "BF16": 2, "F32": 4, "I64": 8}


@st.composite
def true_headers(draw: st.DrawFn) -> tuple[Header, int]:
    """A true header of up to 5 tensors, in any order, and the length of its data."""
    header, begin = {}, 0
    for number in range(draw(st.integers(1, 5))):
        dtype = draw(st.sampled_from(sorted(BYTES_PER)))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        size = BYTES_PER[dtype]
        for length in shape:
            size *= length
        header[f"t{number}"] = {
            "dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size],
        }  # fmt: skip
        begin += size
    names = draw(st.permutations(sorted(header)))
    return {name: header[name] for name in names}, begin


@given(true_headers())
def test_true_headers_pass(header: tuple[Header, int]) -> None:
    content, data_bytes = header
    check_header(json.dumps(content).encode(), data_bytes)
    check_header(json.dumps({"__metadata__": {"format": "pt"}} | content).encode(), data_bytes)


@given(true_headers(), st.data())
def test_no_offset_can_be_changed(header: tuple[Header, int], data: st.DataObject) -> None:
    content, data_bytes = header
    tensor = content[data.draw(st.sampled_from(sorted(content)))]
    side = data.draw(st.integers(0, 1))
    right = tensor["data_offsets"][side]
    wrong = data.draw(st.integers(-10, data_bytes + 10).filter(lambda value: value != right))
    tensor["data_offsets"][side] = wrong
    with pytest.raises(BadHeader):
        check_header(json.dumps(content).encode(), data_bytes)


@given(true_headers(), st.integers(-8, 8).filter(bool))
def test_the_data_has_the_length_that_the_header_says(
    header: tuple[Header, int], difference: int
) -> None:
    content, data_bytes = header
    with pytest.raises(BadHeader):
        check_header(json.dumps(content).encode(), data_bytes + difference)


@given(true_headers(), st.data())
def test_two_tensors_never_share_bytes(header: tuple[Header, int], data: st.DataObject) -> None:
    content, data_bytes = header
    twin = dict(content[data.draw(st.sampled_from(sorted(content)))])
    if twin["data_offsets"][0] != twin["data_offsets"][1]:
        with pytest.raises(BadHeader):
            check_header(json.dumps(content | {"twin": twin}).encode(), data_bytes)


@given(st.binary(max_size=200), st.integers(0, 100))
def test_noise_never_raises_anything_else(header: bytes, data_bytes: int) -> None:
    with pytest.raises(BadHeader):
        check_header(b"[" + header, data_bytes)


def one(**changes: Any) -> bytes:
    return json.dumps(
        {"t": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} | changes}
    ).encode()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"t": 1}',
        b'{"t": {"dtype": "U8", "shape": [4]}}',
        one(dtype="U9"),
        one(dtype=["U8"]),
        one(shape=[-4], data_offsets=[0, -4]),
        one(shape=[2.0, 2]),
        one(shape=[True, 4]),
        one(shape=4),
        one(shape=[2**70]),
        one(data_offsets=[0, 4, 8]),
        one(data_offsets=[4, 0]),
        one(more=1),
        b'{"__metadata__": {"a": 1}}',
        b'{"__metadata__": []}',
        one()[:-1] + b", " + one()[1:],
        one().decode().encode("utf-16"),
        one().decode().encode("utf-32-le"),
        one().decode().encode("utf-8-sig"),
        one().replace(b'"t"', b'"\\ud800"'),
        one().replace(b"[0, 4]", b"[-0, 4]"),
    ],
)
def test_bad_headers(header: bytes) -> None:
    with pytest.raises(BadHeader):
        check_header(header, 4)


def test_half_bytes_add_up() -> None:
    check_header(one(dtype="F4", shape=[8]), 4)
    with pytest.raises(BadHeader):
        check_header(one(dtype="F4", shape=[7]), 4)


GOOD = safetensors({"a": b"x" * 10, "b": b"y" * 20})


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 7, b"\xff" * 8 + GOOD[8:], GOOD[:-1], GOOD + b"\0", GOOD[:20]]
)
def test_bad_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UnsafeWeights) as caught:
        check_file(path, "model.safetensors")
    assert caught.value.file == "model.safetensors"


def test_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(GOOD)
    check_file(tmp_path / "x", "x")


def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with file.open("wb") as opened:
        opened.write((17 * 2**20).to_bytes(8, "little"))
        opened.truncate(20 * 2**20)
    with pytest.raises(UnsafeWeights, match="a header of 17825792 bytes"):
        check_file(file, file.name)
