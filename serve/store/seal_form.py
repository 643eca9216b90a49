"""Records as JSON, by pydantic: written, and read with a word on what is wrong in them."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def text_of(record: Any) -> bytes:
    """A file's content."""
    return _adapter(type(record)).dump_json(record, indent=1)


def parsed(kind: type[T], record: Any) -> T:
    """The value of this kind that a JSON object stands for; ValueError that says what is wrong."""
    try:
        found: T = _adapter(kind).validate_python(record)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from error
    return found


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
