"""Rows of text in columns, for the width that there is. Pure."""

from collections.abc import Iterator, Sequence
from unicodedata import combining, east_asian_width

# The last column is not made narrower than this, whatever the terminal.
_LEAST_CELLS = 20


def columns(rows: Sequence[Sequence[str]], gap: int, width: int) -> Iterator[tuple[str, str]]:
    """Lines, each as what keeps together (padded) and what was wrapped to fit: the last column."""
    if not rows:
        return
    widths = [max(map(cells, column)) + gap for column in list(zip(*rows, strict=True))[:-1]]
    room = max(width - sum(widths), _LEAST_CELLS)
    for *first, last in rows:
        left = "".join(_padded(cell, wide) for cell, wide in zip(first, widths, strict=True))
        for part in last.split("\n"):
            for line in _wrapped(part, room):
                yield left, line
                left = " " * sum(widths)


def cells(text: str) -> int:
    """How wide a terminal shows it: Chinese characters take two cells, accents on letters none."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if combining(character):
        return 0
    return 2 if east_asian_width(character) in ("W", "F") else 1


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def _wrapped(text: str, room: int) -> Iterator[str]:
    """At spaces where possible, and inside words that are longer than a line."""
    if cells(text) <= room:
        yield text
        return
    line = ""
    for word in text.split():
        if line and cells(line) + 1 + cells(word) > room:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
        while cells(line) > room:
            fits = _fitting(line, room)
            yield line[:fits]
            line = line[fits:]
    if line:
        yield line


def _fitting(text: str, room: int) -> int:
    """How many characters of a too long text go into one line."""
    used = 0
    for number, character in enumerate(text):
        used += _cells_of(character)
        if used > room:
            return number
    return len(text)
