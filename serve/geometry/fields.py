"""The fields of a config.json, checked as they are taken: a wrong one is refused by its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve.errors import BadFile

FILE = "config.json"
# No model comes near these; above them is a slip or an attempt to make us count for ever.
LARGEST_COUNT = 2**24
MOST_LAYERS = 4096
LONGEST_CONTEXT = 2**31
_LARGEST_SHOWN = 10**18  # Python itself refuses to write out numbers of some thousand digits

# Where a model for more than text keeps the config of its language model.
_NESTS = ("text_config", "llm_config", "language_config")


def refused(field: str, problem: str) -> BadFile:
    """The error for a field that is missing, wrong or contradicts another."""
    return BadFile(FILE, f"{field}: {problem}")


@dataclass(frozen=True, slots=True)
class Fields:
    """One JSON object. Null counts as missing, as it does for transformers.

    Where several names are given they are names of one thing: the first that is there is taken, and
    two that differ are refused. Everything here raises BadFile("config.json", "field: why").
    """

    content: Mapping[str, Any]

    def has(self, name: str) -> bool:
        return self.content.get(name) is not None

    def count(self, *names: str, most: int = LARGEST_COUNT) -> int:
        """A whole number above 0 that must be there."""
        found = self.optional(*names, most=most)
        if found is None:
            raise refused(names[0], "is missing")
        return found

    def optional(self, *names: str, least: int = 1, most: int = LARGEST_COUNT) -> int | None:
        """A whole number, or None where none of the names is there."""
        found = [(name, self._whole(name, least, most)) for name in names if self.has(name)]
        for name, value in found[1:]:
            if value != found[0][1]:
                raise refused(name, f"{value} contradicts {found[0][0]}, {found[0][1]}")
        return found[0][1] if found else None

    def counts(self, name: str, most: int = LARGEST_COUNT) -> tuple[int, ...] | None:
        """A list of whole numbers, 0 and above; None where it is not there."""
        values = self._list(name)
        if values is None:
            return None
        return tuple(_whole(f"{name}[{at}]", value, 0, most) for at, value in enumerate(values))

    def words(self, name: str) -> tuple[str, ...] | None:
        """A list of texts; None where it is not there."""
        values = self._list(name)
        if values is None:
            return None
        return tuple(_text(f"{name}[{at}]", value) for at, value in enumerate(values))

    def word(self, *names: str) -> str | None:
        """A text; None where none of the names is there."""
        found = [(name, _text(name, self.content[name])) for name in names if self.has(name)]
        for name, value in found[1:]:
            if value != found[0][1]:
                raise refused(name, f"{value!r} contradicts {found[0][0]}, {found[0][1]!r}")
        return found[0][1] if found else None

    def flag(self, name: str, default: bool) -> bool:
        """True or false; `default` where it is not there."""
        value = self.content.get(name)
        if value is not None and not isinstance(value, bool):
            raise refused(name, f"must be true or false: {value!r}")
        return default if value is None else value

    def number(self, name: str) -> float | None:
        """A finite number above 0, whole or not; None where it is not there."""
        value = self.content.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refused(name, f"must be a number: {value!r}")
        if not 0 < value <= LONGEST_CONTEXT:
            raise refused(name, f"must be above 0 and at most {LONGEST_CONTEXT}: {value!r}")
        return float(value)

    def table(self, name: str) -> "Fields | None":
        """A JSON object; None where it is not there."""
        value = self.content.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise refused(name, f"must be an object: {value!r:.80}")
        return Fields(value)

    def _whole(self, name: str, least: int, most: int) -> int:
        return _whole(name, self.content[name], least, most)

    def _list(self, name: str) -> list[Any] | None:
        value = self.content.get(name)
        if value is not None and not isinstance(value, list | tuple):
            raise refused(name, f"must be a list: {value!r:.80}")
        return None if value is None else list(value)


def read_fields(config: Mapping[str, Any]) -> tuple[Fields, Fields]:
    """(the fields of the language model, those of the whole file), mostly the same object.

    Models that see or hear nest the language model. Raises BadFile.
    """
    if not isinstance(config, Mapping):
        raise BadFile(FILE, f"must be an object: {config!r:.80}")
    whole = Fields(config)
    for nest in _NESTS:
        text = whole.table(nest)
        if text is not None:
            return text, whole
    return whole, whole


def _whole(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise refused(name, f"must be a whole number: {value!r:.80}")
    if not least <= value <= most:
        shown = value if abs(value) <= _LARGEST_SHOWN else "a number too long to show"
        raise refused(name, f"must be from {least} to {most}: {shown}")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise refused(name, f"must be a text: {value!r:.80}")
    return value
