"""Records come out of a segment as they went in, whatever happened to the bytes around them."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.journal.frames import CLOSING, LARGEST_BYTES, Piece, frame, framed, parse, tamed
from serve.journal.records import End, Record, Refusal, Start
from tests.journal.damage import KINDS, problem
from tests.journal.records import end, refusal, start

TEXT = st.text(max_size=20)
NUMBERS = st.integers(-(2**63), 2**64 - 1)
TIMES = st.floats(allow_nan=False)  # which is not even equal to itself
MONEY = {"cost_nanos": NUMBERS, "input_tokens": NUMBERS, "duration_s": TIMES, "ttft_s": TIMES}
RECORDS = st.one_of(
    st.builds(Start, id=TEXT, at=TIMES, model=TEXT, tokens=NUMBERS, slot=NUMBERS),
    st.builds(End, id=TEXT, at=TIMES, model=TEXT, status=NUMBERS, **MONEY),
    st.builds(Refusal, id=TEXT, at=TIMES, status=NUMBERS, client=TEXT),
)


def whole(content: bytes, is_final: bool = False, most: int = 10**6) -> Piece:
    return parse(content, 0, most, is_final, is_last=True)


@given(st.lists(RECORDS, max_size=8))
def test_what_is_framed_is_parsed(records: list[Record]) -> None:
    content = b"".join(map(frame, records))
    for padding in (b"", bytes(50)):
        assert whole(content + padding) == Piece(tuple(records), len(content))
        closed = whole(content + CLOSING + padding)
        assert (closed.records, closed.is_closed) == (tuple(records), True)


def test_no_more_are_parsed_than_wanted() -> None:
    records = [start(number) for number in range(10)]
    content = b"".join(map(frame, records))
    taken: list[Record] = []
    place = 0
    while place < len(content):
        piece = parse(content[place:], place, 3, False, is_last=True)
        assert 0 < len(piece.records) <= 3
        taken += piece.records
        place = piece.end
    assert taken == records


@pytest.mark.parametrize("is_final", [False, True])
def test_a_record_that_is_cut_is_none(is_final: bool) -> None:
    first, second = frame(start(1)), frame(end(1))
    for length in range(len(second)):
        for rest in (b"", bytes(100)):
            piece = whole(first + second[:length] + rest, is_final)
            assert piece.records == (start(1),)
            assert is_final or piece.end == len(first)


def test_while_it_is_written_a_half_record_is_waited_for() -> None:
    half = frame(start(1))[:-3] + bytes(3)
    assert whole(half + frame(start(2))) == Piece((), 0)
    piece = whole(half + frame(start(2)), is_final=True)
    assert piece.records == (start(2),) and piece.is_closed
    assert piece.lost_bytes == len(half) - 3


def test_pages_that_never_came_to_the_disk_take_only_what_was_on_them() -> None:
    records = [end(number) for number in range(200)]
    content = bytearray(b"".join(map(frame, records)))
    content[4096:8192] = bytes(4096)
    found = whole(bytes(content), is_final=True)
    size = len(frame(records[150]))
    missing = set(records) - set(found.records)
    assert 4096 // size <= len(missing) <= 4096 // size + 2
    assert found.is_closed


def test_a_kind_of_a_newer_version_is_passed_over() -> None:
    newer = msgspec.msgpack.encode(["zz", 1, 2])
    piece = whole(frame(start(1)) + framed(newer) + frame(end(1)))
    assert piece.records == (start(1), end(1)) and piece.lost_bytes == len(newer)


def test_a_newer_version_s_further_fields_are_no_harm() -> None:
    longer = framed(msgspec.msgpack.encode([*msgspec.to_builtins(refusal(1)), "more"]))
    assert whole(longer).records == (refusal(1),)


@pytest.mark.parametrize(
    "field, value",
    [
        ("output_tokens", 10**30),
        ("cost_nanos", -(10**30)),
        ("model", "\ud800"),
        ("id", "i" * 2 * LARGEST_BYTES),
    ],
)
def test_what_cannot_be_written_is_written_smaller(field: str, value: object) -> None:
    record = msgspec.structs.replace(end(1), **{field: value})
    with pytest.raises((OverflowError, ValueError)):
        frame(record)
    (kept,) = whole(frame(tamed(record))).records
    assert msgspec.structs.replace(kept, **{field: getattr(end(1), field)}) == end(1)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_takes_what_it_hit_and_nothing_else(kind: str) -> None:
    assert [found for seed in range(60) if (found := problem(seed, kind))] == []


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_windows_make_no_difference(data: st.DataObject) -> None:
    records = [end(number) for number in range(1200)]
    content = b"".join(map(frame, records)) + CLOSING
    size = data.draw(st.integers(LARGEST_BYTES + 100, 3 * LARGEST_BYTES))
    is_final = data.draw(st.booleans())
    taken: list[Record] = []
    place = 0
    while True:
        window = content[place : place + size]
        piece = parse(window, place, 500, is_final, place + len(window) == len(content))
        taken += piece.records
        place = piece.end
        if piece.is_closed:
            break
    assert taken == records and place == len(content) - len(CLOSING)
