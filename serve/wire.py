"""Errors across a process border: JSON-able records that come back as what they were."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from serve.errors import ControlLost, InhouseError, leaves


def to_wire(error: InhouseError) -> dict[str, Any]:
    """An error as a JSON-able record."""
    facts = {field.name: getattr(error, field.name) for field in fields(error)}
    return {"error": type(error).__name__, "facts": facts}


def from_wire(record: Mapping[str, Any]) -> InhouseError:
    """The error that `to_wire` wrote; a `ControlLost` if the record is none of ours."""
    known = {leaf.__name__: leaf for leaf in leaves()}
    try:
        kind, facts = known[record["error"]], record["facts"]
        return kind(**{name: _frozen(value) for name, value in facts.items()})
    except (KeyError, TypeError, AttributeError):
        return ControlLost(reason=f"an answer that is not understood: {record!r}")


def _frozen(value: Any) -> Any:
    """JSON has no tuples; our facts have no lists."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
