"""`inhouse lock`: write down which bytes are meant, and show what is different."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import typer

from serve.catalog import Catalog, ModelSpec
from serve.cli import output, rooms
from serve.cli.changes import as_error, change_rows
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.progress import progress
from serve.errors import LockMismatch
from serve.lock import Lock, LockedFile, LockedModel, read_lock, write_lock
from serve.settings import Settings
from serve.store import Manifest, Store


@with_settings("paths", "hub", "policy", "engine")
def lock(
    settings: Settings,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Nothing named: what is locked; at first server.models, else all that is here.",
            metavar="MODEL",
        ),
    ] = None,
    is_upgrading: Annotated[
        bool, typer.Option("--upgrade", help="Ask the sources what is newest.", metavar=" ")
    ] = False,
    is_checking: Annotated[
        bool, typer.Option("--check", help="Write and fetch nothing.", metavar=" ")
    ] = False,
    removed: Annotated[
        list[str] | None, typer.Option("--remove", help="Lock it no more.", metavar="MODEL")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write down in a lock file which bytes are meant, and show what is different."""
    if is_checking and (is_upgrading or removed):
        raise typer.BadParameter("--check only looks: leave out --upgrade and --remove")
    catalog, store = rooms.catalog(settings), rooms.store(settings)
    old = _existing(settings, is_checking)
    gone = _locked_names(old, catalog, removed or ())
    new = Lock(tuple(model for model in old.models if model.name not in gone))
    names = models or (() if removed else _usual_names(settings, old, store))
    specs = list(dict.fromkeys(catalog.find(name) for name in names))
    outcome = _Outcome(old, new, new)
    for spec in specs:
        outcome = _with(outcome, spec, store, is_upgrading, is_checking)
    _finish(settings, outcome, is_checking, as_json)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """`old`: the file as it was. `new`: as it will be. `found`: as the catalog and what is held
    would have it; where that is not what is locked, it is shown and refused."""

    old: Lock
    new: Lock
    found: Lock


def _with(
    outcome: _Outcome, spec: ModelSpec, store: Store, is_upgrading: bool, is_checking: bool
) -> _Outcome:
    """The outcome with one more model looked at; fetches what is not here, where it may."""
    locked = next((model for model in outcome.new.models if model.name == spec.name), None)
    if locked is not None and not is_upgrading:
        return replace(outcome, found=_put(outcome.found, _as_found(locked, spec, store)))
    if is_checking:
        raise LockMismatch(spec.name, "model", "", spec.name)
    store.pull(spec, progress(), renew=is_upgrading)
    fresh = _locked_model(spec, store.manifest(spec))
    return replace(outcome, new=_put(outcome.new, fresh), found=_put(outcome.found, fresh))


def _finish(settings: Settings, outcome: _Outcome, is_checking: bool, as_json: bool) -> None:
    """Write, and tell. LockMismatch if something locked is not what is found."""
    path, changes = settings.paths.lock, outcome.old.changes_to(outcome.new)
    refused = outcome.new.changes_to(outcome.found)
    is_new = not is_checking and not path.exists()
    if changes or is_new:
        write_lock(path, outcome.new)
    if as_json:
        record = {"path": path, "is_written": bool(changes or is_new)}
        record |= {"changes": [asdict(one) for one in changes]}
        output.put_json(record | {"refused": [asdict(one) for one in refused]})
    else:
        rows = change_rows(changes) + change_rows(refused)
        if rows:
            output.put_table(("MODEL", "WHAT", "LOCKED -> NOW" if refused else "CHANGE"), rows)
        state = "written" if changes or is_new else "not changed"
        if is_checking and not refused:
            state = "as in the catalog and as held"
        count = len(outcome.new.models)
        output.say(f"{path}: {count} model{'' if count == 1 else 's'}, {state}")
    if refused:
        raise as_error(refused[0])


def _existing(settings: Settings, is_needed: bool) -> Lock:
    if not is_needed and not settings.paths.lock.exists():
        return Lock()
    return read_lock(settings.paths.lock)


def _usual_names(settings: Settings, old: Lock, store: Store) -> Iterable[str]:
    if old.models:
        return [model.name for model in old.models]
    return settings.server.models or dict.fromkeys(seal.name for seal in store.manifests())


def _locked_names(old: Lock, catalog: Catalog, given: Iterable[str]) -> set[str]:
    """What is locked under these names or their aliases; LockMismatch if something is not."""
    known = {model.name for model in old.models}
    # What the catalog has no more can still be taken out of the lock.
    names = {name if name in known else catalog.find(name).name for name in given}
    for name in sorted(names - known):
        raise LockMismatch(name, "model", "", name)
    return names


def _as_found(locked: LockedModel, spec: ModelSpec, store: Store) -> LockedModel:
    """What would be locked now: the entry as the catalog has it, the files as they are held. What
    is not here is no difference: `pull --locked` brings it."""
    held = [seal for seal in store.manifests() if seal.name == locked.name]
    same = any((s.revision, s.digest) == (locked.revision, locked.digest) for s in held)
    if held and not same:
        return _locked_model(spec, max(held, key=lambda seal: seal.sealed_at))
    return replace(locked, license=spec.license.name, entry=spec.digest)


def _locked_model(spec: ModelSpec, seal: Manifest) -> LockedModel:
    files = sorted(seal.files, key=lambda record: record.path)
    return LockedModel(
        seal.name, seal.kind, seal.source, seal.revision, spec.license.name, spec.digest,
        seal.digest, tuple(LockedFile(file.path, file.size, file.sha256) for file in files),
    )  # fmt: skip


def _put(lock: Lock, model: LockedModel) -> Lock:
    others = [one for one in lock.models if one.name != model.name]
    return Lock(tuple(sorted([*others, model], key=lambda one: one.name)))
