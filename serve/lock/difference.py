"""What is different between two locks, for people who decide whether they want it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from serve.lock.model import LockedFile, LockedModel

# What people see of a model besides its files. `digest` says no more than the files do.
_FACTS = ("kind", "source", "revision", "license", "entry")


@dataclass(frozen=True, slots=True)
class FactChange:
    """One fact of a model: "kind", "source", "revision", "license" or "entry"."""

    fact: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file; `old` None: it was added, `new` None: it is gone."""

    path: str
    old: LockedFile | None
    new: LockedFile | None


@dataclass(frozen=True, slots=True)
class ModelChange:
    """One model; `facts` and `files` only where both locks have it."""

    name: str
    what: Literal["added", "removed", "changed"]
    old: LockedModel | None
    new: LockedModel | None
    facts: tuple[FactChange, ...] = ()
    files: tuple[FileChange, ...] = ()


def differences(old: Iterable[LockedModel], new: Iterable[LockedModel]) -> tuple[ModelChange, ...]:
    """All that is different, by name."""
    before = {model.name: model for model in old}
    after = {model.name: model for model in new}
    names = sorted(before.keys() | after.keys())
    return tuple(
        change for name in names if (change := _change(name, before.get(name), after.get(name)))
    )


def _change(name: str, old: LockedModel | None, new: LockedModel | None) -> ModelChange | None:
    if old is None or new is None:
        return ModelChange(name, "added" if old is None else "removed", old, new)
    facts, files = tuple(_facts(old, new)), tuple(_files(old, new))
    return ModelChange(name, "changed", old, new, facts, files) if facts or files else None


def _facts(old: LockedModel, new: LockedModel) -> Iterator[FactChange]:
    for fact in _FACTS:
        before, after = getattr(old, fact), getattr(new, fact)
        if before != after:
            yield FactChange(fact, before, after)


def _files(old: LockedModel, new: LockedModel) -> Iterator[FileChange]:
    before = {file.path: file for file in old.files}
    after = {file.path: file for file in new.files}
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            yield FileChange(path, before.get(path), after.get(path))
