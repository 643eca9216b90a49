"""The places where a changed model must be refused, each with the true one accepted beside it.

A gate is asked in an empty folder. It raises `Accepted` if the changed model came through, and
whatever the store raises for the true one; else it returns the refusal.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from serve.catalog import ModelSpec
from serve.errors import InhouseError
from serve.lock import Lock, LockedFile, LockedModel, read_lock
from serve.lock.file import text_of
from serve.sources import DirSource, HubSource
from serve.store import Access, Manifest, Store
from tests.campaigns.bundles import packed, unpacked
from tests.campaigns.forgery import BUNDLE, LOCK, SEAL, digest_of
from tests.campaigns.mutation import Mutation
from tests.campaigns.oracle import held
from tests.campaigns.tampering import Link, Tree
from tests.fakes.fake_hub import FakeHub
from tests.store.models import HUB_SPEC, REPO, no_convert, no_wheel, spec


class Accepted(Exception):
    """What should have been refused was not."""


@dataclass(frozen=True, slots=True)
class World:
    """The true model, a Hub that has it, another that has nothing, and what vouches for it."""

    files: Mapping[str, bytes]
    hub: FakeHub
    empty: FakeHub
    lock: Lock
    artefacts: Mapping[str, bytes]

    def store(self, place: Path, online: bool = True, lock: Lock | None = None) -> Store:
        """A store in a folder; `online` False: what it lacks it cannot have."""
        endpoint = (self.hub if online else self.empty).endpoint
        access = Access(endpoint, None, place / "hf", no_convert, no_wheel)
        return Store(place / "home", access, lock=lock)

    @contextmanager
    def repository(self, files: Mapping[str, bytes]) -> Iterator[None]:
        """The Hub has these files, and tells their true hashes."""
        self.hub.repos[REPO] = dict(files)
        try:
            yield
        finally:
            self.hub.repos[REPO] = dict(self.files)

    @contextmanager
    def replacing(self, files: Mapping[str, bytes], commit: str | None = None) -> Iterator[None]:
        """The Hub has these files instead, whatever revision is asked for; `commit`: and says that
        they are this one."""
        faults = self.hub.faults
        with self.repository(files):
            faults.any_revision = True
            if commit is not None:
                faults.info = json.dumps(listing(self) | {"sha": commit}).encode()
            try:
                yield
            finally:
                faults.any_revision, faults.info = False, None


@contextmanager
def world(files: Mapping[str, bytes], place: Path) -> Iterator[World]:
    """A Hub with the model, a lock on it, and a bundle of it."""
    with FakeHub({REPO: files}) as hub, FakeHub({}) as empty:
        store = World(files, hub, empty, Lock(), {}).store(place)
        store.pull(HUB_SPEC)
        lock = Lock((locked(store.manifest(HUB_SPEC)),))
        artefacts = {LOCK: text_of(lock).encode(), BUNDLE: packed(store, place / BUNDLE)}
        yield World(files, hub, empty, lock, artefacts)


def locked(sealed: Manifest) -> LockedModel:
    """What a lock says of weights that are sealed."""
    files = tuple(LockedFile(one.path, one.size, one.sha256) for one in sealed.files)
    return LockedModel(
        sealed.name, sealed.kind, sealed.source, sealed.revision, sealed.license, HUB_SPEC.digest,
        sealed.digest, files,
    )  # fmt: skip


def refused(work: Callable[[], object]) -> InhouseError:
    """The error of ours that the work ends in; Accepted if it does not, and foreign errors pass."""
    try:
        work()
    except InhouseError as error:
        return error
    raise Accepted


def none_is_held(store: Store, asked: ModelSpec = HUB_SPEC) -> None:
    """Accepted if the store has weights that an engine could load."""
    refused(lambda: store.weights(asked))


def transit(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """The Hub promises the true hashes and sends other bytes; then the true ones."""
    store = world.store(place)
    world.hub.faults.lie = {
        name: content
        for name, content in only_bytes(mutation.files).items()
        if content != world.files[name]
    }
    try:
        error = refused(lambda: store.pull(HUB_SPEC))
    finally:
        world.hub.faults.lie = {}
    none_is_held(store)
    store.pull(HUB_SPEC)
    return error


def repository(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """The repository holds the changed model, with its true hashes; then the true one."""
    store = world.store(place)
    with world.repository(only_bytes(mutation.files)):
        error = refused(lambda: store.pull(HUB_SPEC))
    none_is_held(store)
    store.pull(HUB_SPEC)
    return error


def folder(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """A local folder holds the changed model; another one the true one."""
    for name, files in (("changed", mutation.files), ("true", world.files)):
        (place / name).mkdir(parents=True)
        apply(files, place / name, {})
    store = world.store(place, online=False)
    changed = spec(DirSource(place / "changed"))
    error = refused(lambda: store.ready(changed))
    none_is_held(store, changed)
    store.ready(spec(DirSource(place / "true")))
    return error


def load(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """The model is held, then its files are changed on the disk; an engine is about to load it."""
    world.store(place).pull(HUB_SPEC)
    store = world.store(place, online=False)
    apply(mutation.files, store.ready(HUB_SPEC).path, world.files)
    error = refused(lambda: store.ready(HUB_SPEC))
    refused(lambda: store.ready(HUB_SPEC))
    none_is_held(store)
    return error


def verify(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """As `load`, but the changed files have the old times, so that nothing shows but by reading."""
    world.store(place).pull(HUB_SPEC)
    store = world.store(place, online=False)
    path = store.ready(HUB_SPEC).path
    times = {name: (path / name).stat() for name in world.files}
    apply(mutation.files, path, world.files)
    for name, was in times.items():
        if (path / name).is_file():
            os.utime(path / name, ns=(was.st_atime_ns, was.st_mtime_ns))
    return full_check(store)


def full_check(store: Store) -> InhouseError:
    """What reading everything finds; the weights are in quarantine then."""
    error = refused(lambda: store.verify(HUB_SPEC.name))
    refused(lambda: store.ready(HUB_SPEC))
    none_is_held(store)
    return error


def by_lock(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """The repository has moved on to the changed model; the lock names the true one."""
    store = world.store(place, lock=world.lock)
    with world.replacing(only_bytes(mutation.files)):
        error = refused(lambda: store.pull(HUB_SPEC))
    none_is_held(store)
    store.pull(HUB_SPEC)
    return error


def misdirected(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """A commit is asked for, and the Hub answers with another one."""
    pinned = spec(HubSource(REPO, world.lock.models[0].revision))
    store = world.store(place)
    with world.replacing(only_bytes(mutation.files)):
        error = refused(lambda: store.pull(pinned))
    none_is_held(store, pinned)
    store.pull(pinned)
    return error


def same_commit(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """The Hub says that the changed model is the commit that the lock names."""
    store, commit = world.store(place, lock=world.lock), world.lock.models[0].revision
    with world.replacing(only_bytes(mutation.files), commit):
        error = refused(lambda: store.pull(HUB_SPEC))
    none_is_held(store)
    store.pull(HUB_SPEC)
    return error


def replayed(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """Another revision is held, valid and sealed; the lock names the true one."""
    with world.repository(only_bytes(mutation.files)):
        world.store(place).pull(HUB_SPEC)
    error = refused(lambda: world.store(place, online=False, lock=world.lock).ready(HUB_SPEC))
    world.store(place, lock=world.lock).pull(HUB_SPEC)
    return error


def forged_lock(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """The lock file was changed; the Hub and everything else is true."""
    place.mkdir(parents=True)
    (place / LOCK).write_bytes(only_bytes(mutation.files)[LOCK])
    error = refused(lambda: world.store(place, lock=read_lock(place / LOCK)).pull(HUB_SPEC))
    (place / LOCK).write_bytes(world.artefacts[LOCK])
    store = world.store(place, lock=read_lock(place / LOCK))
    none_is_held(store)
    store.pull(HUB_SPEC)
    return error


def forged_seal(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """The seal of weights that are held was changed; there is no Hub to ask."""
    world.store(place).pull(HUB_SPEC)
    store = world.store(place, online=False)
    store.ready(HUB_SPEC)
    [file] = (place / "home" / "manifests").glob("*.json")
    true = json.loads(file.read_bytes())
    file.write_text(json.dumps(_changed(true, mutation)))
    error = refused(lambda: store.ready(HUB_SPEC))
    file.write_text(json.dumps(true))
    store.ready(HUB_SPEC)
    return error


def reread(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """The seal was changed so that it agrees with itself; everything is read anew."""
    world.store(place).pull(HUB_SPEC)
    store = world.store(place, online=False)
    [file] = (place / "home" / "manifests").glob("*.json")
    true, change = json.loads(file.read_bytes()), _json(mutation)
    record = true["files"][change["sha256 of"] % len(true["files"])]
    record["sha256"] = change["is"]
    true["digest"] = digest_of({one["path"]: one for one in true["files"]})
    file.write_text(json.dumps(true))
    return full_check(store)


def bundle(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """The bundle was changed; then comes the true one, to the same store. Where only the frame
    around all pieces was changed, the pieces are used: of the true model, or of none."""
    place.mkdir(parents=True)
    file = place / BUNDLE
    file.write_bytes(only_bytes(mutation.files)[BUNDLE])
    store = world.store(place, online=False)
    error = refused(lambda: unpacked(store, file))
    held(place, world.files)
    file.write_bytes(world.artefacts[BUNDLE])
    unpacked(store, file)
    if not held(place, world.files):
        raise Accepted("it is refused, and then the true one is too")
    return error


def rebundled(world: World, place: Path, mutation: Mutation) -> InhouseError:
    """A bundle with a true signature holds another revision; the lock names the true one."""
    with world.repository(only_bytes(mutation.files)):
        there = world.store(place / "there")
        there.pull(HUB_SPEC)
        packed(there, place / BUNDLE)
    store = world.store(place / "here", online=False, lock=world.lock)
    error = refused(lambda: unpacked(store, place / BUNDLE))
    none_is_held(store)
    (place / BUNDLE).write_bytes(world.artefacts[BUNDLE])
    unpacked(store, place / BUNDLE)
    return error


GATES: dict[str, Callable[[World, Path, Mutation], InhouseError]] = {
    "transit": transit, "repository": repository, "folder": folder, "load": load,
    "verify": verify, "locked": by_lock, "replayed": replayed, "lock": forged_lock,
    "seal": forged_seal, "reread": reread, "bundle": bundle, "rebundled": rebundled,
    "misdirected": misdirected, "same commit": same_commit,
}  # fmt: skip


def listing(world: World) -> dict[str, Any]:
    """What the Hub tells of its main branch now."""
    url = f"{world.hub.endpoint}/api/models/{REPO}/revision/main"
    told: dict[str, Any] = httpx.get(url, params={"blobs": True}).json()
    return told


def apply(files: Tree | Mapping[str, bytes], root: Path, before: Mapping[str, bytes]) -> None:
    """Make the folder at `root`, which holds `before`, hold these files. What lies there is written
    to in place, through links too, as a failing disk or an intruder would."""
    for name in before.keys() - files.keys():
        (root / name).unlink()
    for name, content in files.items():
        path = root / name
        if isinstance(content, Link):
            outside = root.parent / f"outside-{len(name)}"
            outside.write_bytes(content.content)
            path.unlink(missing_ok=True)
            path.symlink_to(outside) if content.kind == "symbolic" else path.hardlink_to(outside)
        elif content != before.get(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def only_bytes(files: Tree) -> dict[str, bytes]:
    """The files of a model without links, which no repository has."""
    return {name: content for name, content in files.items() if isinstance(content, bytes)}


def _json(mutation: Mutation) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(only_bytes(mutation.files)[SEAL])
    return found


def _changed(true: dict[str, Any], mutation: Mutation) -> dict[str, Any]:
    changed = true | _json(mutation)
    return {key: value for key, value in changed.items() if value is not None}
