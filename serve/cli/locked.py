"""`--locked`: nothing but what the lock file says, for every verb that can have it."""

from collections.abc import Sequence
from typing import Annotated

import typer

from serve.catalog import Catalog, ModelSpec
from serve.lock import Lock, read_lock
from serve.settings import Settings

LockedFlag = Annotated[
    bool, typer.Option("--locked", help="Nothing but what the lock file says.", metavar=" ")
]


def wished_lock(settings: Settings, is_locked: bool) -> Lock | None:
    """The lock to keep to, None without the flag. LockMismatch if there is no file, BadFile."""
    return read_lock(settings.paths.lock) if is_locked else None


def wished_specs(catalog: Catalog, names: Sequence[str], lock: Lock | None) -> list[ModelSpec]:
    """The entries named; nothing named: all that are locked. UnknownModel; LockMismatch, before
    anything is fetched, if the lock does not have one of them, or not as the catalog does."""
    wished = names or [model.name for model in (lock.models if lock else ())]
    specs = list(dict.fromkeys(catalog.find(name) for name in wished))
    for spec in specs:
        if lock is not None:
            lock.find(spec)
    return specs
