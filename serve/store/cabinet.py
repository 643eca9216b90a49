"""The seals on this disk: read, written, renewed, put into quarantine, and one lock per model."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from serve.disk import disk_errors, locked, locked_if_free, shared
from serve.errors import DiskFull, NotWritable, WeightsDamaged
from serve.log import fields
from serve.store import manifest as seals
from serve.store import quarantine, view
from serve.store.checking import checked
from serve.store.manifest import FileRecord, Manifest
from serve.store.progress import Progress

_log = logging.getLogger(__name__)
EVERYBODY = ".all"  # no model's slug begins with a dot


class Cabinet:
    """Where the manifests lie. Several processes may use it at the same time."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._folder = seals.folder(home)

    def manifests(self) -> tuple[Manifest, ...]:
        """All seals, by name and age; those in quarantine too."""
        return seals.manifests(self.home)

    def stamp(self) -> int:
        """Changes with every seal that comes, goes or changes; nanoseconds, 0 before the first."""
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return 0

    def seal(self, found: Manifest) -> Manifest:
        """Make the weights exist. What their folder was before does not exist any more, if it is a
        user's own: that is what it is now. DiskFull, NotWritable."""
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            seals.seal(self.home, found)
            if found.is_yours:
                for one in self.manifests():
                    same = (one.name, one.source) == (found.name, found.source)
                    if same and one.revision != found.revision:
                        self.forget(one)
        return found

    def forget(self, found: Manifest) -> None:
        """Make the weights not exist; their files stay. DiskFull, NotWritable."""
        with disk_errors(self._folder):
            seals.unseal(self.home, found)
        view.remove(self.home, found)

    def check(
        self,
        found: Manifest,
        records: Iterable[FileRecord],
        progress: Progress,
        at_s: float | None = None,
    ) -> Manifest:
        """The seal after these of its files were read to the end: renewed, or in quarantine.

        `at_s`: the whole of it is verified by this, at this time. Read-only folders keep what they
        say; the answer is the same.
        """  # fmt: skip
        again = checked(found, records, progress)
        if again.damage is None and at_s is not None:
            again = replace(again, verified_at=at_s)
        with self._if_writable(again):
            self.seal(again)
        if again.damage is not None:
            _log.error("weights are in quarantine %s", fields(
                model=again.name, file=again.damage.file, expected=again.damage.expected,
                actual=again.damage.actual))  # fmt: skip
            with self._if_writable(again):
                quarantine.put_aside(again, again.damage.file)
        return again

    def mark_used(self, found: Manifest) -> None:
        """Note that the weights are loaded now, where that can be noted."""
        with self._if_writable(found), disk_errors(self._folder):
            seals.mark_used(self.home, found)

    @contextmanager
    def locked(self, name: str, progress: Progress) -> Iterator[None]:
        """Be the only one who works on this model; who waits for that is told."""

        def waiting() -> None:
            progress.note(f"somebody else works on {name}: waiting")

        # House-keeping takes the shared lock for itself: it waits for nobody, and we for it.
        with (
            locked(lock_file(self.home, seals.slug(name)), waiting),
            shared(lock_file(self.home, EVERYBODY), waiting),
        ):
            yield

    def owned(self, stem: str) -> AbstractContextManager[bool]:
        """The same by a model's slug, if that is free now; yields whether it is."""
        return locked_if_free(lock_file(self.home, stem))

    @contextmanager
    def _if_writable(self, found: Manifest) -> Iterator[None]:
        try:
            yield
        except (DiskFull, NotWritable) as error:
            _log.warning("cannot be noted: %s", fields(model=found.name, error=error))


def lock_file(home: Path, stem: str) -> Path:
    """Whose lock stands for a model, by its slug, or for EVERYBODY who works on any."""
    return seals.folder(home) / ".locks" / stem


def damaged(found: Manifest) -> WeightsDamaged:
    """What to say of weights in quarantine."""
    assert found.damage is not None
    damage = found.damage
    return WeightsDamaged(found.name, damage.file, damage.expected, damage.actual)
