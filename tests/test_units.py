import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.units import parse_bytes, parse_seconds, show_ago, show_bytes, show_seconds

EXACT = 2**53 + 1  # a float cannot hold it


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("1K", 1024),
        ("1KiB", 1024),
        ("1KB", 1000),
        ("4G", 4 * 2**30),
        ("4GiB", 4 * 2**30),
        ("4GB", 4 * 10**9),
        ("2tib", 2 * 2**40),
        ("1.5 GiB", 3 * 2**29),
        ("  7 mb  ", 7_000_000),
        (str(EXACT), EXACT),
    ],
)
def test_bytes_are_parsed(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("30s", 30.0),
        ("500ms", 0.5),
        ("5m", 300.0),
        ("5 min", 300.0),
        ("2h", 7200.0),
        ("1.5d", 129600.0),
    ],
)
def test_seconds_are_parsed(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "GiB", "-1", "1,5G", "1 2", "4 PB", "1e3", "٣", "1.", "inf", "9" * 400]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected something like 4GiB"):
        parse_bytes(text)
    with pytest.raises(ValueError, match="expected something like 30s"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (283_220_378, "270.1 MiB"),
        (3 * 2**29, "1.5 GiB"),
        (2**20 - 1, "1.0 MiB"),
        (2**40, "1.0 TiB"),
        (5000 * 2**40, "5000.0 TiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_bytes_are_shown(count: int, text: str) -> None:
    assert show_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9996, "1.0 s"),
        (3.42, "3.4 s"),
        (59.96, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.6, "1 h 0 min"),
        (11040, "3 h 4 min"),
        (86400 * 2 + 3600 * 3 + 5, "2 d 3 h"),
    ],
)
def test_seconds_are_shown(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text


@given(st.integers(min_value=0, max_value=2**59))
def test_plain_bytes_are_exact(count: int) -> None:
    assert parse_bytes(str(count)) == count


@given(st.integers(min_value=0, max_value=2**59))
def test_shown_bytes_parse_back_within_a_twentieth_of_their_unit(count: int) -> None:
    text = show_bytes(count)
    unit_bytes = parse_bytes("1 " + text.split()[1])
    assert abs(parse_bytes(text) - count) <= unit_bytes * 0.05 + 1


@given(st.integers(min_value=0, max_value=2**59))
def test_a_shown_number_of_bytes_is_below_its_next_unit(count: int) -> None:
    number, unit = show_bytes(count).split()
    assert float(number) < 1024 or unit == "TiB"


@given(st.floats(min_value=0, max_value=1e9))
def test_shown_seconds_are_close(seconds: float) -> None:
    words = show_seconds(seconds).split()
    parts = [parse_seconds("".join(words[at : at + 2])) for at in range(0, len(words), 2)]
    assert abs(sum(parts) - seconds) <= max(0.0006, seconds * 0.05)


@given(st.text())
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    for parse in (parse_bytes, parse_seconds):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert repr(text) in str(error)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "just now"),
        (59.9, "just now"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (86399, "23 h ago"),
        (86400, "1 day ago"),
        (86400 * 400, "400 days ago"),
    ],
)
def test_how_long_ago_it_was(seconds: float, text: str) -> None:
    assert show_ago(seconds) == text
