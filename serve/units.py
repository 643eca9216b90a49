"""Bytes and durations: parse what people write, show what people read."""

import re
from collections.abc import Mapping
from fractions import Fraction

_BYTE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _BYTE_UNITS |= {_letter: 1024**_power, f"{_letter}ib": 1024**_power}
    _BYTE_UNITS |= {f"{_letter}b": 1000**_power}
_MS = Fraction(1, 1000)
_SECOND_UNITS: dict[str, Fraction | int] = {
    "": 1,
    "ms": _MS,
    "s": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": 86400,
}
_TOKENS = re.compile(r"\s*(\d{1,12}(?:\.\d{1,3})?)\s*([km]?)\s*", re.IGNORECASE | re.ASCII)
_TOKEN_UNITS = {"": 1, "k": 1024, "m": 1024**2}
_QUANTITY = re.compile(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def parse_bytes(text: str) -> int:
    """`"4GiB"`, `"4G"` (both 2^30), `"4GB"` (10^9) or `"4096"` as bytes; ValueError otherwise."""
    return int(_parse(text, _BYTE_UNITS, "4GiB"))


def parse_seconds(text: str) -> float:
    """`"30s"`, `"500ms"`, `"5m"`, `"2h"` or `"30"` as seconds; ValueError otherwise."""
    return float(_parse(text, _SECOND_UNITS, "30s"))


def parse_tokens(text: str) -> int:
    """`"32k"` (32 × 1024), `"1M"` or `"16000"` as tokens, 1 at least; ValueError otherwise."""
    match = _TOKENS.fullmatch(text)
    tokens = Fraction(match[1]) * _TOKEN_UNITS[match[2].lower()] if match else Fraction(0)
    if tokens < 1 or tokens.denominator != 1:
        raise ValueError(f"expected something like 32k or 16000: {text!r}")
    return int(tokens)


def show_tokens(count: int) -> str:
    """`128k` for 131,072, `16,000` for what is no multiple of 1024."""
    return f"{count // 1024}k" if count >= 1024 and count % 1024 == 0 else f"{count:,}"


def show_bytes(count: int) -> str:
    """`0 B`, `270.1 MiB`, `1.5 GiB`."""
    if abs(count) < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        size = size / 1024
        if abs(round(size, 1)) < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def show_seconds(seconds: float) -> str:
    """`12 ms`, `3.4 s`, `2 min 5 s`, `3 h 4 min`, `2 d 3 h`."""
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def show_ago(seconds: float) -> str:
    """How long ago it was: `just now`, `5 min ago`, `3 h ago`, `1 day ago`, `12 days ago`."""
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds / 60)} min ago"
    if seconds < 86400:
        return f"{int(seconds / 3600)} h ago"
    days = int(seconds / 86400)
    return f"{days} day{'' if days == 1 else 's'} ago"


def _parse(text: str, units: Mapping[str, Fraction | int], example: str) -> Fraction:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"expected something like {example}: {text!r}")
    return Fraction(match[1]) * units[match[2].lower()]
