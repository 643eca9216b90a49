"""Bytes and durations: parse what people write, show what people read."""

import re

_BYTE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _BYTE_UNITS |= {f"{_letter}ib": 1024**_power, _letter: 1024**_power, f"{_letter}b": 1000**_power}
_SECOND_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """`"4GiB"`, `"4G"` (both 2^30), `"4GB"` (10^9) or `"4096"` as bytes; ValueError otherwise."""
    return int(_parse(text, _BYTE_UNITS, "4GiB"))


def parse_seconds(text: str) -> float:
    """`"30s"`, `"500ms"`, `"5m"`, `"2h"` or `"30"` as seconds; ValueError otherwise."""
    return _parse(text, _SECOND_UNITS, "30s")


def show_bytes(count: int) -> str:
    """`0 B`, `270.1 MiB`, `1.5 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{int(size)} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def show_seconds(seconds: float) -> str:
    """`12 ms`, `3.4 s`, `2 min 5 s`, `3 h 4 min`, `2 d 3 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, large_s, small_s in (
        ("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1),
    ):  # fmt: skip
        if whole >= large_s:
            return f"{whole // large_s} {large} {whole % large_s // small_s} {small}"
    raise AssertionError("unreachable: 60 s and more are minutes")


def _parse(text: str, units: dict[str, float] | dict[str, int], example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"expected something like {example}: {text!r}")
    return float(match[1]) * units[match[2].lower()]
