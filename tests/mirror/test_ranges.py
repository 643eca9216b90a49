"""Ranges as slices: whatever is asked for, exactly these bytes or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.mirror.ranges import Span, span

TAG = "0123abc"
sizes = st.integers(0, 50)
places = st.integers(0, 60)


def asked(size: int, wanted: str, **more: str) -> Span:
    headers = {"range": wanted} | {k.replace("_", "-"): v for k, v in more.items()}
    return span(size, TAG, "GET", headers)


@given(sizes, places, places)
def test_a_closed_range_is_a_slice(size: int, first: int, last: int) -> None:
    found = asked(size, f"bytes={first}-{last}")
    content = bytes(range(size))
    if last < first:
        assert found == Span(200, 0, size)
    elif first >= size:
        assert found == Span(416, 0, 0)
    else:
        assert found.status == 206
        assert content[found.begin : found.end] == content[first : last + 1]


@given(sizes, places)
def test_an_open_range_goes_to_the_end(size: int, first: int) -> None:
    found = asked(size, f"bytes={first}-")
    assert found == (Span(206, first, size) if first < size else Span(416, 0, 0))


@given(sizes, places)
def test_a_suffix_is_the_end(size: int, count: int) -> None:
    found = asked(size, f"bytes=-{count}")
    content = bytes(range(size))
    if min(count, size) == 0:
        assert found == Span(416, 0, 0)
    else:
        assert content[found.begin : found.end] == content[-count:]


@given(sizes, st.text(max_size=30))
def test_whatever_is_said_the_span_is_inside_the_file(size: int, wanted: str) -> None:
    found = asked(size, wanted)
    assert found.status in (200, 206, 416)
    assert 0 <= found.begin <= found.end <= size


@pytest.mark.parametrize(
    "wanted",
    ["bytes=0-1,3-4", "lines=1-2", "bytes=", "bytes=-", "bytes", "bytes=a-b", "bytes=1-0",
     "bytes=--1", "bytes=٣-٤", "bytes=0-" + "9" * 19],
)  # fmt: skip
def test_what_is_not_one_range_gets_the_whole(wanted: str) -> None:
    assert asked(10, wanted) == Span(200, 0, 10)


def test_a_head_has_no_ranges() -> None:
    assert span(10, TAG, "HEAD", {"range": "bytes=2-3"}) == Span(200, 0, 10)


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        (f'"{TAG}"', 304),
        (f'W/"{TAG}"', 304),
        (f'"other", "{TAG}"', 304),
        ("*", 304),
        ('"other"', 206),
        (TAG, 206),
        ("", 206),
    ],
)
def test_if_none_match(tags: str, status: int) -> None:
    assert asked(10, "bytes=2-3", if_none_match=tags).status == status


@pytest.mark.parametrize(
    ("tag", "status"),
    [
        (f'"{TAG}"', 206),
        ('"other"', 200),
        (f'W/"{TAG}"', 200),
        ("Sat, 21 Nov 2026 00:00:00 GMT", 200),
    ],
)
def test_a_range_of_another_content_is_not_given(tag: str, status: int) -> None:
    assert asked(10, "bytes=2-3", if_range=tag).status == status
