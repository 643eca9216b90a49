"""Changes of a lock in words: rows of a table, and the first one as an error."""

from collections.abc import Iterable, Iterator

from serve.errors import LockMismatch
from serve.lock import LockedFile, LockedModel, ModelChange
from serve.units import show_bytes

_NONE = "-"
_WORDS = {"license": "licence", "entry": "catalog entry"}
_DIGITS = 12


def change_rows(changes: Iterable[ModelChange]) -> list[tuple[str, str, str]]:
    """Each change as rows of (model, what, how): one for a model that comes or goes, else one for
    each fact and file."""
    return [row for change in changes for row in _rows(change)]


def as_error(change: ModelChange) -> LockMismatch:
    """The first thing that is different about a model that both sides have."""
    for fact in change.facts:
        return LockMismatch(change.name, _WORDS.get(fact.fact, fact.fact), fact.old, fact.new)
    file = change.files[0]
    return LockMismatch(change.name, file.path, _sha256(file.old), _sha256(file.new))


def _rows(change: ModelChange) -> Iterator[tuple[str, str, str]]:
    if change.what == "added" and change.new is not None:
        yield change.name, "added", _summary(change.new)
    elif change.what == "removed" and change.old is not None:
        yield change.name, "removed", _summary(change.old)
    for fact in change.facts:
        old, new = (_short(fact.fact, text) for text in (fact.old, fact.new))
        yield change.name, _WORDS.get(fact.fact, fact.fact), f"{old} -> {new}"
    for file in change.files:
        yield change.name, file.path, f"{_file(file.old)} -> {_file(file.new)}"


def _summary(model: LockedModel) -> str:
    size = show_bytes(sum(file.size for file in model.files))
    place = f"{model.kind}:{model.source} at {model.revision[:_DIGITS]}"
    return f"{place}, {size} in {len(model.files)} files, {model.license}"


def _short(fact: str, text: str) -> str:
    return text[:_DIGITS] if fact in ("revision", "entry") else text


def _file(file: LockedFile | None) -> str:
    return f"{show_bytes(file.size)} {file.sha256[:_DIGITS]}" if file else _NONE


def _sha256(file: LockedFile | None) -> str:
    return file.sha256 if file else "no such file"
