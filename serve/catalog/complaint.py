"""What is wrong in a catalog file, with line and key, and a near match for what is misspelt."""

from pydantic import ValidationError

from serve.catalog.rules import PATTERNS
from serve.catalog.schema import CatalogFile, known_keys
from serve.catalog.source import Source, near
from serve.errors import CatalogError


def complaint(source: Source) -> CatalogError | None:
    """The first thing to say of this file; None if nothing is wrong."""
    try:
        CatalogFile.model_validate(source.content)
    except ValidationError as error:
        return _first_complaint(source, error)
    return None


def _first_complaint(source: Source, error: ValidationError) -> CatalogError:
    # A misspelt key is also a missing one: the spelling is the better news.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    key = tuple(str(part) for part in first["loc"] if part != "[key]")
    match first["type"]:
        case "extra_forbidden":
            return source.error(key, "is not a key of a catalog", near(key[-1], known_keys(key)))
        case "missing":
            return source.error(key, "is missing")
        case "value_error":
            return source.error(key, str(first["ctx"]["error"]))
        case "string_pattern_mismatch":
            must = PATTERNS[first["ctx"]["pattern"]]
            return source.error(key, f"{must}: {first['input']!r}")
        case _:
            return source.error(key, f"{first['msg']}: {first['input']!r}")
