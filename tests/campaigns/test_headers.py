"""Our check of safetensors headers beside an oracle that paints bytes, and the reference."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.store.safetensors import BadHeader, check_header
from tests.campaigns.headers import SIZES, run
from tests.engine.conftest import HOME

SMALL = st.integers(-2, 12)
TENSORS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*sorted(SIZES), "U9"]),
        "shape": st.lists(st.integers(-1, 4), max_size=3),
        "data_offsets": st.lists(SMALL, min_size=2, max_size=2),
    }
)


@given(st.dictionaries(st.sampled_from("abc"), TENSORS, max_size=3), st.integers(0, 12))
def test_every_byte_belongs_to_exactly_one_tensor(header: dict[str, Any], data: int) -> None:
    try:
        check_header(json.dumps(header).encode(), data)
        is_accepted = True
    except BadHeader:
        is_accepted = False
    assert is_accepted == paints(header, data)


@given(st.dictionaries(st.sampled_from("abc"), TENSORS, max_size=3), st.data())
def test_a_header_made_true_is_accepted(header: dict[str, Any], data: st.DataObject) -> None:
    begin = 0
    for tensor in header.values():
        tensor["dtype"] = data.draw(st.sampled_from(["U8", "BF16", "F32"]))
        tensor["shape"] = [abs(length) for length in tensor["shape"]]
        size = bits(tensor) // 8
        tensor["data_offsets"] = [begin, begin + size]
        begin += size
    assert paints(header, begin)
    check_header(json.dumps(header).encode(), begin)


def paints(header: dict[str, Any], data: int) -> bool:
    """Whether the tensors, laid over the data, cover each byte once, each with its own size."""
    paint = [0] * data
    for tensor in header.values():
        begin, end = tensor["data_offsets"]
        if tensor["dtype"] not in SIZES or min([0, *tensor["shape"]]) < 0:
            return False
        if not 0 <= begin <= end <= data or (end - begin) * 8 != bits(tensor):
            return False
        if begin == end and any(
            low < begin < high for low, high in (one["data_offsets"] for one in header.values())
        ):
            return False  # nothing lies inside of a tensor, not even nothing
        for place in range(begin, end):
            paint[place] += 1
    return all(times == 1 for times in paint)


def bits(tensor: dict[str, Any]) -> int:
    total = SIZES[tensor["dtype"]]
    for length in tensor["shape"]:
        total *= length
    return total


@pytest.mark.engine  # the reference reader comes with the runtime
def test_what_the_reference_refuses_we_refuse(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("INHOUSE_HOME", str(HOME))
    report = run(2000, 1, tmp_path)
    assert report.failures == []
    assert {kind[2] for kind in report.trials} == {"yes", "no"}
