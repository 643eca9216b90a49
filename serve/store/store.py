"""All weights that we hold: fetch → verify → seal, and nothing half-done is ever seen."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serve.catalog import ModelSpec
from serve.errors import NotPulled
from serve.lock import Lock
from serve.policy import Policy
from serve.sources import (
    BundleSource,
    DirSource,
    HubSource,
    Kind,
    ModelScopeSource,
    WheelSource,
)
from serve.store import content, folder, wheel
from serve.store import manifest as seals
from serve.store.access import Access
from serve.store.disk import disk_errors, locked, locked_if_free, remove_tree, sha256_of
from serve.store.manifest import Damage, Manifest
from serve.store.progress import Progress, Silent

_SHELVED = re.compile(r"(?:\.part--(?P<part>.+)|(?P<stem>.+)--[0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class Weights:
    """One revision that is held, verified and complete; a listing also has others.

    `path` is where the files lie, `view` the folder for engines: links to exactly the verified
    files. `is_complete` False: somebody removed files after the seal. `damage`: in quarantine.
    Times are in Unix seconds; `used_at` None: never loaded.
    """

    name: str
    path: Path
    view: Path
    kind: Kind
    source: str
    revision: str
    digest: str
    license: str
    via: str
    total_bytes: int
    sealed_at: float
    verified_at: float
    used_at: float | None
    is_complete: bool
    damage: Damage | None


class Store:
    """Weights on this machine. Several processes may use the same folders at the same time.

    `home` is $INHOUSE_HOME: manifests, and weights that came from elsewhere than the Hub.
    `lock`: nothing but what it names is pulled or served.
    """

    def __init__(
        self, home: Path, access: Access, policy: Policy | None = None, lock: Lock | None = None
    ) -> None:
        self._home, self._access, self._policy, self._lock = home, access, policy or Policy(), lock
        self._shelf = home / "weights"

    def pull(self, spec: ModelSpec, progress: Progress | None = None) -> Weights:
        """Have the weights, verified and sealed. At once and without any request if we have them.

        Blocking. Raises SourceUnreachable, AccessDenied, RepoNotFound, UnsafeWeights, HashMismatch,
        DiskFull, NotWritable, ConversionFailed; what was downloaded by then helps the next attempt.
        """
        shown = progress or Silent()
        if found := self._intact(spec):
            return self._weights(found)
        with self._locked(spec.name, shown):
            if found := self._intact(spec):  # somebody else did it while we waited
                return self._weights(found)
            self._sweep(seals.slug(spec.name))
            return self._weights(self._repaired(spec, shown) or self._fetched(spec, shown))

    def weights(self, spec: ModelSpec) -> Weights:
        """The weights that we hold for the spec; NotPulled if none, or if files have changed."""
        if found := self._intact(spec):
            return self._weights(found)
        raise NotPulled(spec.name)

    def ready(self, spec: ModelSpec, progress: Progress | None = None) -> Weights:
        """The weights for an engine, with their view: those that are held, after the cheap check
        (and the full one if that finds a change), else fetched. WeightsDamaged; and what `pull`
        raises."""
        return self.pull(spec, progress)

    def manifest(self, spec: ModelSpec) -> Manifest:
        """The seal of the weights that we hold for the spec; NotPulled as `weights`."""
        if found := self._intact(spec):
            return found
        raise NotPulled(spec.name)

    def manifests(self) -> tuple[Manifest, ...]:
        """All seals, by name and age; those in quarantine too."""
        return seals.manifests(self._home)

    def list(self) -> tuple[Weights, ...]:
        """All that is sealed, by name and age."""
        return tuple(self._weights(found) for found in seals.manifests(self._home))

    def remove(self, name: str) -> int:
        """Forget all revisions held under the name and remove their files; the bytes freed.

        A local folder is forgotten and stays. NotPulled if nothing is held, NotWritable.
        """
        with self._locked(name, Silent()), disk_errors(self._home):
            held = [found for found in seals.manifests(self._home) if found.name == name]
            if not held:
                raise NotPulled(name)
            for found in held:
                seals.unseal(self._home, found)
            return sum(self._remove_files(found) for found in held)

    @staticmethod
    def config(weights: Weights) -> dict[str, Any]:
        """The weights' config.json; UnsafeWeights if it is gone or broken."""
        return content.read_object(weights.path, "config.json")

    def _weights(self, found: Manifest) -> Weights:
        return Weights(
            found.name, found.path, found.path, found.kind, found.source, found.revision,
            found.digest, found.license, found.via, found.total_bytes, found.sealed_at,
            found.verified_at, None, seals.is_complete(found), found.damage,
        )  # fmt: skip

    def _intact(self, spec: ModelSpec) -> Manifest | None:
        return next((found for found in self._sealed(spec) if seals.is_intact(found)), None)

    def _sealed(self, spec: ModelSpec) -> tuple[Manifest, ...]:
        """The seals that answer the spec, the newest first."""
        found = (one for one in seals.manifests(self._home) if _answers(one, spec))
        return tuple(sorted(found, key=lambda one: -one.sealed_at))

    def _repaired(self, spec: ModelSpec, progress: Progress) -> Manifest | None:
        """A seal made anew: the files have other times, as after a move, but the same content."""
        for found in self._sealed(spec):
            if found.kind != "dir" and seals.is_complete(found):
                progress.start(f"checking {spec.name}", found.total_bytes)
                again = _rehashed(found, progress)
                progress.finish()
                if again is not None:
                    return self._seal(again)
        return None

    def _fetched(self, spec: ModelSpec, progress: Progress) -> Manifest:
        _, _, asked = _identity(spec)
        match spec.source:
            case HubSource() as repo:
                # The Hub's client takes a quarter of a second to import; most runs need none.
                from serve.store import hub

                fetched = hub.fetch(repo, self._access, progress)
            case WheelSource() as package:
                stem = seals.slug(spec.name)
                fetched = wheel.fetch(package, stem, self._shelf, self._access, progress)
            case DirSource() as place:
                known = next(iter(self._sealed(spec)), None)
                fetched = folder.fetch(place, known, progress)
            case ModelScopeSource() | BundleSource():
                raise NotImplementedError(spec.source.kind)
        found = self._seal(seals.new_manifest(spec, asked, fetched))
        if found.kind == "dir":
            self._forget_others(found)
        return found

    def _seal(self, manifest: Manifest) -> Manifest:
        with disk_errors(seals.folder(self._home)):
            seals.folder(self._home).mkdir(parents=True, exist_ok=True)
            seals.seal(self._home, manifest)
        return manifest

    def _forget_others(self, kept: Manifest) -> None:
        """A folder is what it is now: the seals of what it was are worthless."""
        for found in seals.manifests(self._home):
            if (found.name, found.source) == (kept.name, kept.source) and (
                found.revision != kept.revision
            ):
                seals.unseal(self._home, found)

    def _remove_files(self, gone: Manifest) -> int:
        if any(found.path == gone.path for found in seals.manifests(self._home)):
            return 0
        match gone.kind:
            case "hf":
                from serve.store import hub

                return hub.remove(gone.path)
            case "dir":
                return 0
            case _:
                remove_tree(gone.path)
                return gone.total_bytes

    def _sweep(self, own: str) -> None:
        """Remove what dead runs left on the shelf; it has no owner if its lock is ours or free."""
        if not self._shelf.is_dir():
            return
        for path in self._shelf.iterdir():
            match = _SHELVED.fullmatch(path.name)
            stem = match and (match["part"] or match["stem"])
            if not stem:
                continue
            lock = nullcontext(True) if stem == own else locked_if_free(self._lock_file(stem))
            with lock as is_ours, disk_errors(path):
                sealed = any(found.path == path for found in seals.manifests(self._home))
                if is_ours and not sealed:
                    remove_tree(path)

    @contextmanager
    def _locked(self, name: str, progress: Progress) -> Iterator[None]:
        def waiting() -> None:
            progress.note(f"somebody else works on {name}: waiting")

        with locked(self._lock_file(seals.slug(name)), waiting):
            yield

    def _lock_file(self, stem: str) -> Path:
        return seals.folder(self._home) / ".locks" / stem


def _identity(spec: ModelSpec) -> tuple[Kind, str, str]:
    """Kind, source and what is asked for in it, as a manifest records them."""
    kind, origin = spec.source.kind, spec.origin
    match spec.source:
        case HubSource(revision=revision) | ModelScopeSource(revision=revision):
            return kind, origin, revision
        case WheelSource(member=member):
            return kind, origin, member
        case DirSource() | BundleSource():
            return kind, origin, ""


def _rehashed(found: Manifest, progress: Progress) -> Manifest | None:
    """The manifest with new times if the files have the same content still; else None."""
    records = []
    for record in found.files:
        if not seals.is_unchanged(found.path, record):
            if sha256_of(found.path / record.path, progress.advance) != record.sha256:
                return None
            record = seals.record_of(found.path, record.path, record.sha256, record.oid)
        records.append(record)
    return replace(found, files=tuple(records))


def _answers(found: Manifest, spec: ModelSpec) -> bool:
    kind, source, asked = _identity(spec)
    if (found.name, found.kind, found.source) != (spec.name, kind, source):
        return False
    match spec.source:
        case HubSource() | ModelScopeSource():
            return asked in (found.asked, found.revision)
        case WheelSource(sha256=sha256):
            return (found.asked, found.revision) == (asked, sha256)
        case DirSource() | BundleSource():
            return True
