"""YAML as plain values that remember their lines. Stricter than YAML: no key twice, no anchors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serve.errors import CatalogError

KeyPath = tuple[str, ...]


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
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
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
    source = Source(path, {}, {})
    if isinstance(node, yaml.MappingNode):
        source.content.update(_Reading(source, loader).mapping(node, ()))
    elif node is not None:
        raise source.error((), "must be a mapping")
    return source


class _Reading:
    """One walk over the nodes of one file, filling `source.lines` on its way."""

    def __init__(self, source: Source, loader: yaml.SafeLoader) -> None:
        self._source = source
        self._loader = loader
        self._seen: set[int] = set()

    def mapping(self, node: yaml.MappingNode, at: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines = self._source.lines
        for key_node, child in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            place = f"{self._source.path}:{line}"
            if key_node.tag != "tag:yaml.org,2002:str":
                raise CatalogError(place, ".".join(at), f"a key must be a word: {key}")
            path = (*at, key)
            if key in values:
                first = lines[path]
                raise CatalogError(
                    place, ".".join(path), f"stands here twice, first in line {first}"
                )
            lines[path] = line
            values[key] = self._value(child, path)
        return values

    def _value(self, node: yaml.Node, at: KeyPath) -> Any:
        # A node met twice is an alias of an anchor; such files can be endless.
        if id(node) in self._seen:
            raise self._source.error(at, "anchors and aliases of YAML are not understood here")
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*at, str(n))) for n, item in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise self._source.error(at, f"is not a value that YAML knows: {node.value}") from error

    def _item(self, node: yaml.Node, at: KeyPath) -> Any:
        self._source.lines[at] = node.start_mark.line + 1
        return self._value(node, at)
