"""What nobody needs any more: found, counted, removed, and never anything else.

Never what is locked or served, never what a pull or an import works on, and in the Hub's cache
never a file that another program has put there or may come back for. A removal that is killed
leaves each model whole or gone; the record of a retired seal lets the next one finish it.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from serve.disk import disk_errors, is_locked, locked, locked_if_free, remove_tree
from serve.errors import NotPulled
from serve.sources import Kind
from serve.store import manifest as seals
from serve.store import view
from serve.store.cabinet import EVERYBODY, lock_file
from serve.store.leftover import Leftover, Look, Place, What, Wish, superseded
from serve.store.manifest import Manifest
from serve.store.references import References, changed_at, size_of, tree_size
from serve.store.shelf import SHELVED

_BLOB = re.compile(r"(?P<hash>[0-9a-f]{40,64})(?P<rest>\.inhouse.*)?")
_VIEW = re.compile(r"(?:\.(?:part|old)--)?(?P<stem>.+)--[0-9a-f]{12}")


# A seal alone goes: so many bytes, and how.
_NOTHING: tuple[int, Callable[[], None]] = (0, lambda: None)


@dataclass(frozen=True, slots=True)
class _Thing:
    """A leftover, how it goes, and the lock that protects it while others are at work; None: it
    may only go when nobody is. `retire`: of weights, the first step alone."""

    leftover: Leftover
    remove: Callable[[], None]
    lock: Path | None = None
    retire: Callable[[], None] = lambda: None


def find(place: Place, wish: Wish) -> tuple[Leftover, ...]:
    """All that would go. Writes nothing; NotWritable if something must not even be read."""
    is_alone = not is_locked(lock_file(place.home, EVERYBODY))
    with disk_errors(place.home):
        return tuple(
            replace(thing.leftover, is_busy=not is_alone and thing.lock is None)
            for thing in _Search(place, wish).things()
        )


def clear(place: Place, wish: Wish) -> tuple[Leftover, ...]:
    """Remove what `find` finds; returns it, with `is_busy` for what is still there. NotWritable."""
    everybody = lock_file(place.home, EVERYBODY)
    with disk_errors(place.home), locked_if_free(everybody) as is_alone:
        return tuple(_cleared(thing, is_alone) for thing in _Search(place, wish).things())


def remove(place: Place, name: str) -> int:
    """Remove all weights of the name, in the Hub's cache with all that lies in their snapshots; the
    bytes freed. Waits for whoever works on this model. While others work on others the files in
    the cache stay, which they may be about to use; `clear` finishes it. NotPulled, NotWritable."""
    own = lock_file(place.home, seals.slug(name))
    everybody = lock_file(place.home, EVERYBODY)
    with (
        disk_errors(place.home),
        locked(own, lambda: None),
        locked_if_free(everybody) as is_alone,
    ):
        search = _Search(place, Wish(), is_thorough=True)
        things = search.all_of(name)
        if not things:
            raise NotPulled(name)
        gone = [thing for kind, thing in things if is_alone or kind != "hf"]
        for thing in gone:
            thing.remove()
        for _, thing in things:
            thing.retire()
        return sum(thing.leftover.freed_bytes for thing in gone)


@dataclass
class _Search:
    """One look at everything. The order of its findings is the order in which they go.

    `is_thorough`: what others have put into our snapshots goes with them.
    """

    place: Place
    wish: Wish
    is_thorough: bool = False

    def __post_init__(self) -> None:
        self._held = seals.manifests(self.place.home)
        self._retired = seals.retired(self.place.home)
        self._staying = {(seal.name, seal.revision): seal for seal in self._held}
        self._repos: dict[Path, References] = {}

    def things(self) -> list[_Thing]:
        """All that may go now."""
        found = [
            *self._sealed(),
            *self._removals(),
            *self._torn(),
            *self._partials(),
            *self._arrivals(),
        ]
        # A seal that we cannot read may be of a newer version of ours: what it seals is not known.
        files = len(list(seals.folder(self.place.home).glob("*.json")))
        if files == len(self._held):
            found += [*self._shelf(), *self._views()]
        return found

    def all_of(self, name: str) -> list[tuple[Kind, _Thing]]:
        """All that is sealed under the name, with the kind of its source."""
        named = [seal for seal in self._held if seal.name == name]
        return [(seal.kind, self.weights(seal, "removal")) for seal in named]

    def weights(self, seal: Manifest, what: What) -> _Thing:
        """A seal, and those of its files that no other seal names."""
        home = self.place.home
        is_sealed = self._staying.pop((seal.name, seal.revision), None) is not None
        staying = self._staying.values()
        freed_bytes, go = _NOTHING
        if not any(one.path == seal.path for one in staying):
            freed_bytes, go = self._files_of(seal)
        own_view = view.folder_of(home, seal)
        has_own_view = all(view.folder_of(home, one) != own_view for one in staying)

        def retire() -> None:
            if is_sealed:
                seals.retire(home, seal)

        def remove() -> None:
            retire()
            if has_own_view:
                view.remove(home, seal)
            go()
            seals.bury(home, seal)

        at = self._used(seal) if what == "unused" else seal.sealed_at
        found = Leftover(what, seal.name, seal.path, freed_bytes, at, seal.revision)
        return _Thing(found, remove, retire=retire)

    def _sealed(self) -> Iterator[_Thing]:
        look = Look(seals.is_complete, self._idle_s)
        for seal, what in superseded(self._held, self.place.lock, self.wish, look):
            yield self.weights(seal, what)

    def _removals(self) -> Iterator[_Thing]:
        for seal in self._retired:
            if (seal.name, seal.revision) in self._staying:
                # It was pulled again since: the record alone is old.
                yield _Thing(_record(seal), partial(seals.bury, self.place.home, seal))
            elif seal.name not in self.wish.kept:
                yield self.weights(seal, "removal")

    def _files_of(self, seal: Manifest) -> tuple[int, Callable[[], None]]:
        """How many bytes the seal's files are, and how they go."""
        if seal.kind != "hf":
            # What lies elsewhere is a user's own folder and stays.
            is_ours = seal.kind != "dir" and seal.path.is_relative_to(self.place.home)
            return (tree_size(seal.path), partial(remove_tree, seal.path)) if is_ours else _NOTHING
        if seal.path.parent.name != "snapshots":
            return _NOTHING
        repo = self._repo(seal.path.parents[1])
        same = [one for one in (*self._held, *self._retired) if one.path == seal.path]
        paths = {record.path for one in same for record in one.files}
        refs = {one.asked for one in same}
        if not self.is_thorough and not repo.is_only(seal.path, paths, refs):
            return _NOTHING
        files = repo.without(seal.path, (record.oid for record in seal.files if record.oid))
        return sum(map(size_of, files)), partial(repo.remove, seal.path, files)

    def _torn(self) -> Iterator[_Thing]:
        """Seals that somebody was writing when he was killed."""
        for path in sorted(seals.folder(self.place.home).glob(".*.part")):
            yield _file("unsealed", path.name.strip(".").partition("--")[0], path, None)

    def _partials(self) -> Iterator[_Thing]:
        """What dead pulls left in the Hub's cache, and whole blobs of ours that nobody names."""
        sealed = {record.oid for seal in self._staying.values() for record in seal.files}
        for storage in sorted((self.place.hub_home / "hub").glob("models--*")):
            locks = storage.parent / ".locks" / storage.name
            name = storage.name.removeprefix("models--").replace("--", "/", 1)
            for path in sorted((storage / "blobs").glob("*.inhouse*")):
                if match := _BLOB.fullmatch(path.name):
                    lock = locks / f"{match['hash']}.inhouse.lock"
                    is_aside = path.name.endswith("-damaged")
                    if is_aside or not is_locked(lock):
                        yield _file("aside" if is_aside else "partial", name, path, lock)
            for path in self._repo(storage).unnamed():
                # Blobs that others make are no business of ours: we lock each that we make.
                ours, theirs = (locks / f"{path.name}{end}" for end in (".inhouse.lock", ".lock"))
                if path.name in sealed:
                    continue  # its revision lost the link to it; the next pull finds it
                if ours.exists() and not is_locked(ours) and not is_locked(theirs):
                    yield _file("unnamed", name, path, None)

    def _arrivals(self) -> Iterator[_Thing]:
        """Imports that were cut short; each can be continued, or go."""
        for path in _inside(self.place.home / "imports"):
            lock = lock_file(self.place.home, seals.slug(f"import--{path.name}"))
            if not is_locked(lock):
                yield _folder("arrival", path.name[:12], path, lock)

    def _shelf(self) -> Iterator[_Thing]:
        sealed = {seal.path for seal in (*self._held, *self._retired)}
        for path in _inside(self.place.home / "weights"):
            match = SHELVED.fullmatch(path.name)
            if match is None or path in sealed:
                continue
            what: What = "partial" if match["pull"] else "unsealed"
            stem = match["part"] or match["pull"] or match["stem"]
            lock = lock_file(self.place.home, stem)
            if not is_locked(lock):
                yield _folder(what, stem, path, None if match["stem"] else lock)

    def _views(self) -> Iterator[_Thing]:
        wanted = {view.folder_of(self.place.home, seal) for seal in self._held}
        kept = {seals.slug(name) for name in self.wish.kept}
        for path in _inside(self.place.home / "views"):
            match = _VIEW.fullmatch(path.name)
            if match and path not in wanted and match["stem"] not in kept:
                lock = lock_file(self.place.home, match["stem"])
                if not is_locked(lock):
                    yield _folder("view", match["stem"], path, None)

    def _repo(self, storage: Path) -> References:
        if storage not in self._repos:
            self._repos[storage] = References(storage)
        return self._repos[storage]

    def _idle_s(self, seal: Manifest) -> float:
        return time.time() - self._used(seal)

    def _used(self, seal: Manifest) -> float:
        return seals.used_at(self.place.home, seal) or seal.sealed_at


def _cleared(thing: _Thing, is_alone: bool) -> Leftover:
    guard: AbstractContextManager[bool] = nullcontext(is_alone)
    if not is_alone and thing.lock is not None:
        guard = locked_if_free(thing.lock)
    with guard as is_ours:
        if is_ours:
            thing.remove()
        return replace(thing.leftover, is_busy=not is_ours)


def _record(seal: Manifest) -> Leftover:
    return Leftover("removal", seal.name, seal.path, 0, seal.sealed_at, seal.revision)


def _file(what: What, name: str, path: Path, lock: Path | None) -> _Thing:
    found = Leftover(what, name, path, size_of(path), changed_at(path))
    return _Thing(found, partial(path.unlink, missing_ok=True), lock)


def _folder(what: What, name: str, path: Path, lock: Path | None) -> _Thing:
    found = Leftover(what, name, path, tree_size(path), changed_at(path))
    return _Thing(found, partial(remove_tree, path), lock)


def _inside(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
