"""YAML as plain values that remember their lines. Stricter than YAML: no key twice, no anchors."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serve.errors import CatalogError

KeyPath = tuple[str, ...]

# libyaml's is ten times as fast; a PyYAML built without it has the other one only.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT = "tag:yaml.org,2002:str"
_DEEPEST = 8  # keys above one another; the catalog needs five


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file: `content`, and for each key path the line (from 1) where it stands."""

    path: Path
    content: dict[str, Any]
    lines: dict[KeyPath, int]

    def error(self, key: KeyPath, problem: str, suggestion: str | None = None) -> CatalogError:
        """A CatalogError that names the line of this key, or of the nearest one above it."""
        at = next((self.lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self.lines), 1)
        return CatalogError(f"{self.path}:{at}", ".".join(key), problem, suggestion)


def read_source(path: Path) -> Source:
    """Read a YAML file whose top is a mapping; raises CatalogError."""
    try:
        return _Reading(path, path.read_text(encoding="utf-8")).document()
    except OSError as error:
        raise CatalogError(str(path), "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CatalogError(str(path), "", "is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise CatalogError(place, "", f"is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise CatalogError(str(path), "", f"is not YAML: {' '.join(str(error).split())}") from error


def near(word: str, known: Iterable[str]) -> str | None:
    """What was meant, if something is called alike."""
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)


class _Reading:
    """One walk over the events of one file, filling `source.lines` on its way.

    Over events, because libyaml's own composer overflows the stack where a file is nested deeply.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._source = Source(path, {}, {})
        self._loader = _Loader(text)

    def document(self) -> Source:
        """The one document of the file; an empty file is an empty mapping."""
        self._next()  # the stream's start
        if isinstance(self._next(), yaml.StreamEndEvent):
            return self._source
        event = self._next()
        if isinstance(event, yaml.MappingStartEvent):
            self._source.content.update(self._mapping(event, ()))
        elif not isinstance(event, yaml.ScalarEvent) or self._value(event, ()) is not None:
            raise self._source.error((), "must be a mapping")
        self._next()  # the document's end
        if not isinstance(self._next(), yaml.StreamEndEvent):
            raise self._source.error((), "must be one document, without ---")
        return self._source

    def _mapping(self, start: yaml.MappingStartEvent, at: KeyPath) -> dict[str, Any]:
        self._check(start, at)
        values: dict[str, Any] = {}
        lines = self._source.lines
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            place = f"{self._source.path}:{line}"
            key = event.value if isinstance(event, yaml.ScalarEvent) else "a list or mapping"
            if not isinstance(event, yaml.ScalarEvent) or self._tag(event) != _TEXT:
                raise CatalogError(place, ".".join(at), f"a key must be a word: {key}")
            path = (*at, key)
            if key in values:
                first = lines[path]
                raise CatalogError(
                    place, ".".join(path), f"stands here twice, first in line {first}"
                )
            lines[path] = line
            values[key] = self._value(self._next(), path)
        return values

    def _sequence(self, start: yaml.SequenceStartEvent, at: KeyPath) -> list[Any]:
        self._check(start, at)
        values: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            path = (*at, str(len(values)))
            self._source.lines[path] = event.start_mark.line + 1
            values.append(self._value(event, path))
        return values

    def _value(self, event: Any, at: KeyPath) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event, at)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, at)
        self._check(event, at)
        tag = self._tag(event)
        if tag == _TEXT:  # most are; the constructor would give the same
            return event.value
        node = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark)
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            problem = f"is not a value that YAML knows: {event.value}"
            raise self._source.error(at, problem) from error

    def _check(self, event: Any, at: KeyPath) -> None:
        if event.anchor is not None:  # an alias has one too; such files can be endless
            raise self._source.error(at, "anchors and aliases of YAML are not understood here")
        if len(at) > _DEEPEST:
            raise self._source.error(at[:_DEEPEST], "is nested too deeply")

    def _tag(self, scalar: Any) -> str:
        if scalar.tag not in (None, "!"):
            return str(scalar.tag)
        return str(self._loader.resolve(yaml.ScalarNode, scalar.value, scalar.implicit))

    def _next(self) -> Any:
        return self._loader.get_event()
