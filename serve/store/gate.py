"""What may be held and served here at all: the operator's policy, and the lock."""

from collections.abc import Iterable

from serve.catalog import ModelSpec
from serve.errors import LockMismatch
from serve.lock import Lock, LockedFile, LockedModel
from serve.policy import Policy
from serve.sources import Source, show_source
from serve.store.manifest import FileRecord, Manifest


class Gate:
    """Asked before anything is fetched, and again before anything is served."""

    def __init__(self, policy: Policy, lock: Lock | None) -> None:
        self._policy, self._lock = policy, lock

    def locked(self, spec: ModelSpec) -> LockedModel | None:
        """What is locked for the spec; None without a lock. LockMismatch if the lock does not have
        the model."""
        return self._lock.find(spec) if self._lock else None

    def check_source(self, spec: ModelSpec, source: Source) -> None:
        """NotAllowed, LockMismatch unless weights may come from here."""
        self._policy.check(spec, source.kind, show_source(source))
        locked = self.locked(spec)
        if locked and (locked.kind, locked.source) != (source.kind, show_source(source)):
            raise LockMismatch(spec.name, "source", locked.source, show_source(source))

    def check_held(self, spec: ModelSpec, found: Manifest) -> None:
        """NotAllowed, LockMismatch unless these weights may be used."""
        kind = "bundle" if found.via.startswith("bundle") else found.kind
        self._policy.check(spec, kind, found.source)
        self.check_files(spec, found.revision, found.files)

    def check_arrival(self, spec: ModelSpec, told: Manifest) -> None:
        """NotAllowed, LockMismatch unless these weights may come in a bundle."""
        self._policy.check(spec, "bundle", told.source)
        self.check_files(spec, told.revision, told.files)

    def check_files(self, spec: ModelSpec, revision: str, files: Iterable[FileRecord]) -> None:
        """LockMismatch unless these are exactly the locked files."""
        if self._lock is not None:
            held = (LockedFile(one.path, one.size, one.sha256) for one in files)
            self._lock.check(spec, revision, held)
