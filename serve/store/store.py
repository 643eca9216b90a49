"""All weights that we hold: fetch → verify → seal, and nothing half-done is ever seen."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from serve.catalog import DirSource, HubSource, ModelSpec, WheelSource
from serve.errors import NotPulled
from serve.store import content, folder, wheel
from serve.store import manifest as seals
from serve.store.access import HubAccess
from serve.store.disk import disk_errors, locked, locked_if_free, remove_tree
from serve.store.manifest import Manifest
from serve.store.progress import Progress, Silent
from serve.store.wheel import Tools

_SHELVED = re.compile(r"(?:\.part--(?P<part>.+)|(?P<stem>.+)--[0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class Weights:
    """A complete, verified folder of one revision. `sealed_at` is in Unix seconds."""

    name: str
    path: Path
    revision: str
    digest: str
    total_bytes: int
    source: str
    sealed_at: float


@dataclass(frozen=True, slots=True)
class Held:
    """A row of the listing. Not `is_complete`: somebody removed files after the seal."""

    name: str
    path: Path
    revision: str
    digest: str
    total_bytes: int
    source: str
    sealed_at: float
    is_complete: bool


class Store:
    """Weights on this machine. Several processes may use the same folders at the same time.

    `home` is $INHOUSE_HOME: manifests, and weights that came from elsewhere than the Hub.
    """

    def __init__(self, home: Path, access: HubAccess, tools: Tools) -> None:
        self._home, self._access, self._tools = home, access, tools
        self._shelf = home / "weights"

    def pull(self, spec: ModelSpec, progress: Progress | None = None) -> Weights:
        """Have the weights, verified and sealed. At once and without any request if we have them.

        Blocking. Raises SourceUnreachable, AccessDenied, RepoNotFound, UnsafeWeights, HashMismatch,
        DiskFull, NotWritable, ConversionFailed; what was downloaded by then helps the next attempt.
        """
        shown = progress or Silent()
        if found := self._intact(spec):
            return _weights(found)
        with self._locked(spec.name, shown):
            if found := self._intact(spec):  # somebody else did it while we waited
                return _weights(found)
            self._sweep(seals.slug(spec.name))
            return _weights(self._repaired(spec, shown) or self._fetched(spec, shown))

    def weights(self, spec: ModelSpec) -> Weights:
        """The weights that we hold for the spec; NotPulled if none, or if files have changed."""
        if found := self._intact(spec):
            return _weights(found)
        raise NotPulled(spec.name)

    def list(self) -> tuple[Held, ...]:
        """All that is sealed, by name and age."""
        return tuple(
            Held(**asdict(_weights(found)), is_complete=seals.is_complete(found))
            for found in seals.manifests(self._home)
        )

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

    def _intact(self, spec: ModelSpec) -> Manifest | None:
        return next((found for found in self._sealed(spec) if seals.is_intact(found)), None)

    def _sealed(self, spec: ModelSpec) -> tuple[Manifest, ...]:
        """The seals that answer the spec, the newest first."""
        found = (one for one in seals.manifests(self._home) if _answers(one, spec))
        return tuple(sorted(found, key=lambda one: -one.sealed_at))

    def _repaired(self, spec: ModelSpec, progress: Progress) -> Manifest | None:
        """A seal made anew: the files have other times, as after a move, but the same content."""
        for found in self._sealed(spec):
            if found.kind != "folder" and seals.is_complete(found):
                progress.start(f"checking {spec.name}", found.total_bytes)
                again = seals.rehashed(found, progress.advance)
                progress.finish()
                if again is not None:
                    return self._seal(again)
        return None

    def _fetched(self, spec: ModelSpec, progress: Progress) -> Manifest:
        kind, source, asked = _identity(spec)
        match spec.source:
            case HubSource() as repo:
                # The Hub's client takes a quarter of a second to import; most runs need none.
                from serve.store import hub

                fetched = hub.fetch(repo, self._access, progress)
            case WheelSource() as package:
                stem = seals.slug(spec.name)
                fetched = wheel.fetch(package, stem, self._shelf, self._tools, progress)
            case DirSource() as place:
                known = next(iter(self._sealed(spec)), None)
                fetched = folder.fetch(place, known, progress)
        found = self._seal(seals.new_manifest(spec.name, kind, source, asked, fetched))
        if kind == "folder":
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
            case "hub":
                from serve.store import hub

                return hub.remove(gone.path)
            case "wheel":
                remove_tree(gone.path)
                return gone.total_bytes
            case "folder":
                return 0

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


def _identity(spec: ModelSpec) -> tuple[Literal["hub", "wheel", "folder"], str, str]:
    """Kind, source and what is asked for in it, as a manifest records them."""
    match spec.source:
        case HubSource(repo=repo, revision=revision):
            return "hub", repo, revision
        case WheelSource(member=member):
            return "wheel", spec.origin, member
        case DirSource(path=path):
            return "folder", str(path.resolve()), ""


def _answers(found: Manifest, spec: ModelSpec) -> bool:
    kind, source, asked = _identity(spec)
    if (found.name, found.kind, found.source) != (spec.name, kind, source):
        return False
    match spec.source:
        case HubSource():
            return asked in (found.asked, found.revision)
        case WheelSource(sha256=sha256):
            return (found.asked, found.revision) == (asked, sha256)
        case DirSource():
            return True


def _weights(found: Manifest) -> Weights:
    return Weights(
        found.name, found.path, found.revision, digest=found.digest,
        total_bytes=found.total_bytes, source=found.source, sealed_at=found.sealed_at,
    )  # fmt: skip
