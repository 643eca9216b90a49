"""What a setting may be: text from flags and variables, or a value of YAML, read strictly.

By hand and not by pydantic, which takes longer to import than all else that `inhouse ls` does. Its
sentences are kept, and its leniency towards numbers that are written as text; a test holds both
against pydantic itself.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Read = Callable[[Any], Any]

_INTEGER = "Input should be a valid integer"
_NUMBER = "Input should be a valid number"
_TOO_LARGE = "Unable to parse input string as an integer, exceeded maximum size"
_LONGEST_INTEGER = 4300  # digits; Python itself reads no more


class Wrong(Exception):
    """A value that is none of its kind. `value`: what is wrong there; `item`: where in a list;
    `is_told`: the problem quotes the value already."""

    def __init__(
        self, problem: str, value: Any, item: int | None = None, is_told: bool = False
    ) -> None:
        super().__init__(problem)
        self.problem, self.value, self.item, self.is_told = problem, value, item, is_told


class Secret:
    """A text that shows itself to nobody who does not ask for it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """The text itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return "**********" if self._text else ""

    def __repr__(self) -> str:
        return f"Secret({str(self)!r})"


@dataclass(frozen=True, slots=True)
class Kind:
    """`read` gives the value, or raises Wrong. `words`: all that it may be, if these are few."""

    read: Read
    words: tuple[str, ...] = ()
    is_secret: bool = False


def _text(value: Any) -> str:
    try:
        text = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise Wrong("Input should be a valid string, unable to parse raw data as a unicode string",
                    value) from None  # fmt: skip
    if not isinstance(text, str):
        raise Wrong("Input should be a valid string", value)
    return text


def _place(value: Any) -> Path:
    # Used from other folders too (engines, the installer). Links stay as they are: the interpreter
    # of a virtual environment is one.
    if not isinstance(value, str | Path):
        raise Wrong("Input is not a valid path for <class 'pathlib.Path'>", value)
    return Path(value).absolute()


TEXT = Kind(_text)
SECRET = Kind(lambda value: Secret(_text(value)), is_secret=True)
PLACE = Kind(_place)


def one_of(*words: str) -> Kind:
    """One of a few words."""
    quoted = [repr(word) for word in words]
    must = f"Input should be {', '.join(quoted[:-1])} or {quoted[-1]}"

    def read(value: Any) -> Any:
        if not isinstance(value, str) or value not in words:
            raise Wrong(must, value)
        return value

    return Kind(read, words)


def many(kind: Kind) -> Kind:
    """Any number of these, as a tuple."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple | set | frozenset):
            raise Wrong("Input should be a valid tuple", value)
        return tuple(one(number, item) for number, item in enumerate(value))

    def one(number: int, value: Any) -> Any:
        try:
            return kind.read(value)
        except Wrong as wrong:
            raise Wrong(wrong.problem, wrong.value, number, wrong.is_told) from None

    return Kind(read)


def whole(
    least: int | None = None, most: int | None = None, parse: Callable[[str], int] | None = None
) -> Kind:
    """An integer within bounds; `parse` reads text that has a form of its own (ValueError)."""

    def read(value: Any) -> int:
        number = _parsed(parse, value) if parse and isinstance(value, str) else _integer(value)
        _check_bounds(number, value, least, most)
        return number

    return Kind(read)


def number(
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    parse: Callable[[str], float] | None = None,
) -> Kind:
    """A finite number within bounds, `above` one of them or not less than `least`."""

    def read(value: Any) -> float:
        found = _parsed(parse, value) if parse and isinstance(value, str) else _float(value)
        _check_bounds(found, value, least, most)
        if most is None and not math.isfinite(found):
            raise Wrong("Input should be a finite number", value)
        if above is not None and not found > above:
            raise Wrong(f"Input should be greater than {above}", value)
        return found

    return Kind(read)


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise Wrong(str(error), text, is_told=True) from None


def _check_bounds(number: float, value: Any, least: float | None, most: float | None) -> None:
    if most is not None and not number <= most:  # so NaN is refused too
        raise Wrong(f"Input should be less than or equal to {most}", value)
    if least is not None and not number >= least:
        raise Wrong(f"Input should be greater than or equal to {least}", value)


def _integer(value: Any) -> int:
    match value:
        case int():
            return int(value)
        case float() if not math.isfinite(value):
            raise Wrong("Input should be a finite number", value)
        case float() if value % 1:
            raise Wrong(f"{_INTEGER}, got a number with a fractional part", value)
        case float() if abs(value) >= 2**63:
            raise Wrong(_TOO_LARGE, value)
        case float():
            return int(value)
        case str() | bytes():
            return _integer_in(value)
    raise Wrong(_INTEGER, value)


def _integer_in(value: str | bytes) -> int:
    """`8000`, `+1_000`, ` 5.0 `: the fraction may be there, but of zeros."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    found = re.fullmatch(r"([+-]?[0-9]+(?:_[0-9]+)*)(?:\.0+)?", text.strip())
    if found is None:
        raise Wrong(f"{_INTEGER}, unable to parse string as an integer", value)
    digits = found[1].replace("_", "")
    if len(digits) > _LONGEST_INTEGER:
        raise Wrong(_TOO_LARGE, value)
    return int(digits)


def _float(value: Any) -> float:
    if not isinstance(value, int | float | str | bytes):
        raise Wrong(_NUMBER, value)
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    try:
        if isinstance(text, str) and not text.strip().isascii():
            raise ValueError(text)  # Python would read digits of other scripts
        return float(text)
    except OverflowError:
        raise Wrong(_NUMBER, value) from None
    except ValueError:
        raise Wrong(f"{_NUMBER}, unable to parse string as a number", value) from None
