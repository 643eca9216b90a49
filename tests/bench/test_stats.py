import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.bench.stats import percentile, summary

figures = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0], 0.5, 1.5),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 0.25, 1.75),
        ([float(n) for n in range(101)], 0.99, 99.0),
    ],
)
def test_percentile_is_linear_between_neighbours(
    values: list[float], share: float, expected: float
) -> None:
    assert percentile(values, share) == pytest.approx(expected)


def test_no_values_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@given(figures)
def test_a_summary_is_ordered(values: list[float]) -> None:
    made = summary(values)
    assert made.low <= made.median <= made.high
    assert made.median <= made.p99 + 1e-6
    assert made.count == len(values)


@given(figures, st.floats(0, 1))
def test_a_percentile_lies_within(values: list[float], share: float) -> None:
    assert min(values) - 1e-6 <= percentile(values, share) <= max(values) + 1e-6
