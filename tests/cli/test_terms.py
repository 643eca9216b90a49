"""Terms of keys as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.cli.terms import parse_begin, parse_count, parse_end, parse_limits, split
from serve.errors import SettingsError
from serve.quota import NANOS, Limits

TEXT = st.text(max_size=12) | st.text("0123456789.kMG/daymonth-+einf", max_size=12)


def test_limits() -> None:
    assert parse_limits(None, None, None, (), ()) == Limits()
    assert parse_limits("600", "2M", "8", ("5M/day",), ("0/month", "0.01/day")) == Limits(
        600, 2_000_000, 8, 5_000_000, None, NANOS // 100, 0
    )


@pytest.mark.parametrize(
    ("text", "count"), [("600", 600), ("20k", 20_000), ("1.5M", 1_500_000), (" 2G ", 2 * 10**9)]
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text, "--rpm") == count


@given(TEXT)
def test_a_text_is_a_count_or_refused(text: str) -> None:
    try:
        assert parse_count(text, "--rpm") >= 1
    except SettingsError as error:
        assert error.key == "--rpm"


@given(TEXT, TEXT)
def test_texts_are_limits_or_refused(tokens: str, budget: str) -> None:
    try:
        limits = parse_limits(None, None, None, (tokens,), (budget,))
    except SettingsError as error:
        assert error.key in ("--tokens", "--budget")
    else:
        assert limits.nanos_per_day is None or limits.nanos_per_day >= 0


def test_moments() -> None:
    assert parse_end("never", 5.0, "--expires") is None
    assert parse_end("90d", 5.0, "--expires") == 5.0 + 90 * 86400
    assert parse_end("1970-01-02", 5.0, "--expires") == 86400
    assert parse_end("1970-01-02T02:00:00+02:00", 5.0, "--expires") == 86400
    assert parse_begin("1h", 5000.0, "--since") == 1400


@given(TEXT)
def test_a_text_is_a_moment_or_refused(text: str) -> None:
    try:
        parse_begin(text, 0.0, "--since")
    except SettingsError as error:
        assert error.key == "--since"


def test_lists() -> None:
    assert split(["a, b", "c", ",,"]) == ("a", "b", "c")
