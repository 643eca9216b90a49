"""All weights that we hold: fetch → verify → seal, and nothing half-done is ever seen."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from serve.catalog import ModelSpec
from serve.errors import NotPulled
from serve.lock import Lock
from serve.policy import Policy
from serve.shape import Tensor
from serve.sources import BundleSource
from serve.store import admission, approval, leftovers, looking, origins, quarantine, view
from serve.store import manifest as seals
from serve.store.access import Access
from serve.store.answer import answering, asked_of, origin_of, pinned
from serve.store.cabinet import Cabinet, damaged
from serve.store.gate import Gate
from serve.store.leftover import Leftover, Place, Wish
from serve.store.look import Look
from serve.store.manifest import Manifest
from serve.store.origins import Order
from serve.store.progress import Progress, Silent
from serve.store.shelf import sweep
from serve.store.staging import Staging
from serve.store.weights import Weights, weights_of


class Store:
    """Weights on this machine. Several processes may use the same folders at the same time.

    `home` is $INHOUSE_HOME: manifests, views, and weights that came from elsewhere than the Hub.
    `lock`: nothing but what it names is pulled or served.

    A model is held by its seal, a manifest; which one stands for a spec, `answering` says. What is
    done about the files behind it depends on the cheap check (`seals.changed`):

    | its files are | `weights` | `ready`, for engines | `pull` |
    |---|---|---|---|
    | as sealed | gives them | gives them | gives them |
    | touched, of the same content | NotPulled | reads them, seals anew | reads them, seals anew |
    | damaged | NotPulled | quarantine, WeightsDamaged | quarantine, then fetches them anew |
    | in quarantine | WeightsDamaged | WeightsDamaged | fetches them anew |
    | in part gone | NotPulled | fetches them anew | fetches them anew |

    "Anew" means the same revision. A user's own folder is what it is when it is pulled; afterwards
    any other content is damage. Policy and lock are asked before anything is fetched or given.
    """

    def __init__(
        self, home: Path, access: Access, policy: Policy | None = None, lock: Lock | None = None
    ) -> None:
        self._home, self._shelf, self._access = home, home / "weights", access
        self._gate, self._cabinet = Gate(policy or Policy(), lock), Cabinet(home)
        self._lock = lock

    def pull(
        self, spec: ModelSpec, progress: Progress | None = None, renew: bool = False
    ) -> Weights:
        """Have the weights, verified and sealed. At once and without any request if we have them.

        `renew` asks the spec's own source which revision it has now; the new seal stands beside the
        old one. Blocking. Raises NotAllowed, LockMismatch, SourceUnreachable, AccessDenied,
        RepoNotFound, UnsafeWeights, HashMismatch, DiskFull, NotWritable, ConversionFailed; what was
        downloaded by then helps the next attempt.
        """
        shown = progress or Silent()
        if isinstance(spec.source, BundleSource) and spec.source.path.exists():
            return self._access.unbundle(spec.source.path, spec.name, shown)  # here: at once
        found = None if renew else self._admitted(spec)
        if found is None or not _is_intact(found):
            with self._cabinet.locked(spec.name, shown):
                found = self._fetched(spec, None, shown) if renew else self._healed(spec, shown)
        approval.check_held(found, spec.remote_code)  # it may have been sealed under another one
        return self._weights(self._preferred(spec, found, shown))

    def ready(self, spec: ModelSpec, progress: Progress | None = None) -> Weights:
        """The weights for an engine, with their view: what is held, after the cheap check (and a
        full one of the files that this leaves in doubt), else fetched.

        Raises WeightsDamaged, and then the weights are in quarantine; and what `pull` raises.
        """
        shown = progress or Silent()
        found = self._admitted(spec)
        if found is None and isinstance(spec.source, BundleSource):
            self._access.unbundle(spec.source.path, spec.name, shown)
            found = self._admitted(spec)
        if found is None or not _is_intact(found):
            with self._cabinet.locked(spec.name, shown):
                found = self._sound(spec, shown)
        if not view.is_made(self._home, found, spec.remote_code):
            with self._cabinet.locked(spec.name, shown):
                view.make(self._home, found, spec.remote_code)
        if spec.remote_code == found.revision:
            approval.tell(spec.name, found.path, True, shown)  # at each load: code of others runs
        self._cabinet.mark_used(found)
        return self._weights(found)

    def weights(self, spec: ModelSpec) -> Weights:
        """The weights that we hold for the spec, by the cheap check. Nothing is loaded by this, so
        no policy is asked. NotPulled if there are none or files have changed, WeightsDamaged."""
        return self._weights(self.manifest(spec))

    def manifest(self, spec: ModelSpec) -> Manifest:
        """The seal of the weights that we hold for the spec; raises as `weights`."""
        found = self._standing(spec)
        if found is not None and found.damage is not None:
            raise damaged(found)
        if found is None or not _is_intact(found):
            raise NotPulled(spec.name)
        return found

    def manifests(self) -> tuple[Manifest, ...]:
        """All seals, by name and age; those in quarantine too."""
        return self._cabinet.manifests()

    def stamp(self) -> int:
        """Changes with every seal that comes, goes or changes; nanoseconds, 0 before the first."""
        return self._cabinet.stamp()

    def list(self) -> tuple[Weights, ...]:
        """All that is sealed, by name and age."""
        return tuple(self._weights(found) for found in self.manifests())

    def verify(self, held: Weights | str, progress: Progress | None = None) -> Weights:
        """Read every file of one revision that is held to its end; a name means its newest.

        Good weights leave a quarantine by this, and are `verified_at` now. WeightsDamaged, and then
        they are in quarantine; NotPulled if nothing is held.
        """
        shown = progress or Silent()
        name, revision = (held, None) if isinstance(held, str) else (held.name, held.revision)
        with self._cabinet.locked(name, shown):
            named = [one for one in self.manifests() if one.name == name]
            found = next((one for one in named[::-1] if revision in (None, one.revision)), None)
            if found is None:
                raise NotPulled(name)
            fresh = replace(found, damage=None)
            again = self._cabinet.check(fresh, fresh.files, shown, time.time())
        if again.damage is not None:
            raise damaged(again)
        return self._weights(again)

    def expect(self, spec: ModelSpec, told: Manifest) -> Weights | None:
        """What is held already of weights that arrive from elsewhere; None: they may come.

        `told` is their manifest there. NotAllowed, LockMismatch, UnsafeWeights if they may not.
        """
        self._gate.check_arrival(spec, told)
        admission.check(spec, told)
        same = (one for one in self.manifests() if admission.is_same(one, told))
        return next(map(self._weights, same), None)

    @contextmanager
    def staging(self, arrival: str, progress: Progress) -> Iterator[Staging]:
        """Where the content of one arrival (the sha256 that names it) is kept until it is whole."""
        with self._cabinet.locked(f"import--{arrival}", progress):
            yield Staging(self._home / "imports" / arrival)

    def admit(
        self, spec: ModelSpec, told: Manifest, staging: Staging, progress: Progress
    ) -> Weights:
        """Verify and seal weights whose content is in the staging. Raises what `expect` raises,
        HashMismatch, DiskFull, NotWritable; what is good stays in the staging."""
        homes = admission.Homes(self._shelf, self._access.home)
        with self._cabinet.locked(told.name, progress):
            if held := self.expect(spec, told):
                return held
            fetched = admission.admit(spec, told, staging, homes, progress)
            made = self._cabinet.seal(admission.sealed(spec, told, fetched))
            return self._weights(self._cabinet.seal(admission.settled(made, staging)))

    def remove(self, name: str) -> int:
        """Forget all revisions held under the name and remove their files; the bytes freed.

        A local folder is forgotten and stays. While others work on other models, files in the Hub's
        cache stay for a later `clear`. NotPulled if nothing is held, NotWritable.
        """
        return leftovers.remove(self._place(), name)

    def leftovers(
        self, unused_s: float | None = None, kept: frozenset[str] = frozenset()
    ) -> tuple[Leftover, ...]:
        """What nobody needs any more, in the order in which `clear` would remove it.

        `unused_s`: weights too that were not loaded for so long; `kept`: names of models of which
        nothing goes. What is locked never goes. NotWritable if something cannot even be read.
        """
        return leftovers.find(self._place(), Wish(unused_s, kept))

    def clear(
        self, unused_s: float | None = None, kept: frozenset[str] = frozenset()
    ) -> tuple[Leftover, ...]:
        """Remove what `leftovers` tells; returns it, marked busy what had to stay. NotWritable."""
        return leftovers.clear(self._place(), Wish(unused_s, kept))

    @staticmethod
    def config(weights: Weights) -> dict[str, Any]:
        """The weights' config.json; UnsafeWeights if it is gone or broken."""
        return looking.config_of(weights.path)

    @staticmethod
    def tensors(weights: Weights) -> tuple[Tensor, ...]:
        """Every tensor of the weights, from the headers on disk; UnsafeWeights."""
        return looking.tensors_of(weights.path)

    def look(self, spec: ModelSpec) -> Look:
        """What a plan needs of weights that are not here: read from their repository by a few
        requests, far less than 1 MB. Raises SourceUnreachable, AccessDenied, RepoNotFound,
        UnsafeWeights; NotPulled where only the whole of it can be had (a wheel, ModelScope)."""
        self._gate.check_source(spec, spec.source)
        return looking.look(spec, self._access)

    def _place(self) -> Place:
        return Place(self._home, self._access.home, self._lock)

    def _weights(self, found: Manifest) -> Weights:
        return weights_of(self._home, found)

    def _standing(self, spec: ModelSpec) -> Manifest | None:
        """The seal that stands for the spec: the newest whose files are all there, whatever their
        content, else the newest. What is in quarantine does not give way to what is older."""
        held = [
            one
            for one in answering(self.manifests(), spec, self._gate.locked(spec))
            if not approval.lacks_code(one, spec.remote_code)
        ]
        whole = (one for one in held if one.damage is not None or seals.is_there(one))
        return next(whole, next(iter(held), None))

    def _admitted(self, spec: ModelSpec) -> Manifest | None:
        """The seal that stands for the spec, if policy and lock let it; None if there is none."""
        found = self._standing(spec)
        if found is not None:
            self._gate.check_held(spec, found)
        return found

    def _sound(self, spec: ModelSpec, shown: Progress) -> Manifest:
        """What stands for the spec, its files as they were sealed. What is gone is fetched, what is
        damaged is not. The caller has the model's lock, here and below."""
        found = self._admitted(spec)
        if found is None:
            return self._fetched(spec, None, shown)
        if found.damage is None and not _is_intact(found):
            if not _is_readable(found):
                return self._fetched(spec, found, shown)
            found = self._cabinet.check(found, seals.changed(found), shown)
        if found.damage is not None:
            raise damaged(found)
        return found

    def _healed(self, spec: ModelSpec, shown: Progress) -> Manifest:
        """What stands for the spec, its files as they were sealed; what is gone or damaged is
        fetched. A user's own folder that has changed is not damaged by that."""
        found = self._admitted(spec)
        if found is None or found.is_yours:
            is_same = found is not None and _is_intact(found)
            return found if found and is_same else self._fetched(spec, found, shown)
        quarantine.cut_links(found)
        if found.damage is None and seals.is_there(found):
            found = self._cabinet.check(found, seals.changed(found), shown)
            if found.damage is None:
                return found
        return self._fetched(spec, found, shown)

    def _fetched(self, spec: ModelSpec, known: Manifest | None, shown: Progress) -> Manifest:
        """A new seal; with `known`, for its very revision again."""
        again = origin_of(known, spec) if known else None
        source = again or spec.source
        self._gate.check_source(spec, source)
        locked = self._gate.locked(spec)
        if known and known.damage:
            quarantine.clear(known)
        sweep(self._shelf, seals.slug(spec.name), self._sealed_paths, self._cabinet.owned)
        order = Order(
            spec.name, pinned(source, locked.revision if locked else None), spec.remote_code,
            {file.path: file.sha256 for file in locked.files} if locked else None,
            known if again and not (known and known.damage) else None,
        )  # fmt: skip
        fetched = origins.fetch(order, self._shelf, self._access, shown)
        self._gate.check_files(spec, fetched.revision, fetched.files)
        is_code = spec.remote_code == fetched.revision
        approval.tell(spec.name, fetched.path, is_code, shown)
        was = known if again and known else None
        chosen = replace(spec, source=source, is_chosen=was.is_chosen if was else spec.is_chosen)
        asked = was.asked if was else asked_of(spec)
        return self._cabinet.seal(seals.new_manifest(chosen, asked, fetched))

    def _preferred(self, spec: ModelSpec, found: Manifest, shown: Progress) -> Manifest:
        """A source that was chosen for a pull is the model's from now on, if it is not yet."""
        if not spec.is_chosen:
            return found
        with self._cabinet.locked(spec.name, shown):
            held = [one for one in self.manifests() if one.name == found.name]
            if found not in held:
                raise NotPulled(spec.name)  # removed by somebody, this very moment
            if found.is_chosen and found.sealed_at == max(one.sealed_at for one in held):
                return found
            return self._cabinet.seal(replace(found, is_chosen=True, sealed_at=time.time()))

    def _sealed_paths(self) -> set[Path]:
        return {found.path for found in self.manifests()}


def _is_intact(found: Manifest) -> bool:
    return found.damage is None and not seals.changed(found) and not quarantine.stray(found)


def _is_readable(found: Manifest) -> bool:
    """Whether all of it can be read. Of a user's own folder, a file that is gone is a change."""
    return seals.is_there(found) or (found.is_yours and found.path.is_dir())
