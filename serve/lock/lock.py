"""What is locked, and whether something is what the lock says."""

from collections.abc import Iterable
from dataclasses import dataclass

from serve.catalog import ModelSpec
from serve.errors import LockMismatch
from serve.lock.difference import ModelChange, differences
from serve.lock.model import LockedFile, LockedModel


@dataclass(frozen=True, slots=True)
class Lock:
    """All locked models, by name."""

    models: tuple[LockedModel, ...] = ()

    def find(self, spec: ModelSpec) -> LockedModel:
        """What is locked for the spec. LockMismatch if nothing is, or if the catalog entry is not
        the one that was locked."""
        found = next((one for one in self.models if one.name == spec.name), None)
        if found is None:
            raise LockMismatch(spec.name, "model", "", spec.name)
        if found.entry != spec.digest:
            raise LockMismatch(spec.name, "catalog entry", found.entry, spec.digest)
        return found

    def changes_to(self, new: "Lock") -> tuple[ModelChange, ...]:
        """All that is different in another lock, by name; nothing if both mean the same bytes."""
        return differences(self.models, new.models)

    def check(self, spec: ModelSpec, revision: str, files: Iterable[LockedFile]) -> None:
        """LockMismatch, naming the first difference, unless these are exactly the locked files."""
        locked = self.find(spec)
        if revision != locked.revision:
            raise LockMismatch(spec.name, "revision", locked.revision, revision)
        wanted = {file.path: file for file in locked.files}
        held = {file.path: file for file in files}
        for path in sorted(wanted.keys() | held.keys()):
            if wanted.get(path) != held.get(path):
                raise LockMismatch(
                    spec.name, path, _shown(wanted.get(path)), _shown(held.get(path))
                )


def _shown(file: LockedFile | None) -> str:
    return file.sha256 if file else "no such file"
