"""Terms of a key as people write them: `20/day`, `5M/month`, `90d`, `2027-01-31`. Pure."""

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from serve.errors import SettingsError
from serve.quota import NANOS, Limits
from serve.units import parse_seconds

_PERIODS = ("day", "month")
_SCALES = {"k": 10**3, "m": 10**6, "g": 10**9}


def parse_count(text: str, flag: str) -> int:
    """`600`, `20k`, `2M`: thousands and millions."""
    number, scale = text.strip(), 1
    if number[-1:].lower() in _SCALES:
        number, scale = number[:-1], _SCALES[number[-1:].lower()]
    return _whole(number, scale, 1, flag, f"expected something like 600 or 2M: {text!r}")


def parse_limits(
    rpm: str | None, tpm: str | None, concurrency: str | None,
    tokens: Iterable[str], budgets: Iterable[str],
) -> Limits:  # fmt: skip
    """What flags of `key create` say; SettingsError names the flag."""
    found: dict[str, Any] = {}
    for name, text in (("rpm", rpm), ("tpm", tpm), ("concurrency", concurrency)):
        if text is not None:
            found[name] = parse_count(text, f"--{name}")
    found |= _per_period(tokens, "--tokens", "tokens", "5M/day", parse_count)
    found |= _per_period(budgets, "--budget", "nanos", "20/day", _money)
    return Limits(**found)


def parse_end(text: str, now: float, flag: str) -> float | None:
    """`90d` from now, or a date (UTC); `never` is None. Unix seconds."""
    return None if text == "never" else _moment(text, now, 1, flag)


def parse_begin(text: str, now: float, flag: str) -> float:
    """`30d` ago, or a date (UTC). Unix seconds."""
    return _moment(text, now, -1, flag)


def split(texts: Iterable[str]) -> tuple[str, ...]:
    """What was given with commas, or one by one."""
    return tuple(word for text in texts for each in text.split(",") if (word := each.strip()))


def _moment(text: str, now: float, direction: int, flag: str) -> float:
    try:
        return now + direction * parse_seconds(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        problem = f"expected something like 90d, 12h or 2027-01-31: {text!r}"
        raise SettingsError("flag", flag, problem) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _per_period(
    texts: Iterable[str], flag: str, unit: str, example: str, parse: Callable[[str, str], int]
) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in split(texts):
        amount, _, period = text.partition("/")
        if period not in _PERIODS:
            raise SettingsError("flag", flag, f"expected something like {example}: {text!r}")
        name = f"{unit}_per_{period}"
        if name in found:
            raise SettingsError("flag", flag, f"is there twice for one {period}")
        found[name] = parse(amount, flag)
    return found


def _money(text: str, flag: str) -> int:
    return _whole(text, NANOS, 0, flag, f"expected something like 20/day: {text!r}")


def _whole(text: str, scale: int, least: int, flag: str, problem: str) -> int:
    try:
        number = float(text) * scale
    except ValueError:
        raise SettingsError("flag", flag, problem) from None
    if not math.isfinite(number) or number > 2**62 or round(number) < least:
        raise SettingsError("flag", flag, problem)
    return round(number)
