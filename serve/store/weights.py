"""What is held, as everybody else sees it."""

from dataclasses import dataclass
from pathlib import Path

from serve.sources import Kind
from serve.store import manifest as seals
from serve.store import view
from serve.store.manifest import Damage, Manifest


@dataclass(frozen=True, slots=True)
class Weights:
    """One revision that is held, verified and complete; a listing also has others.

    `path` is where the files lie; `view` the folder for engines, with links to exactly the verified
    files, which `Store.ready` makes. `is_complete` False: somebody removed files after the seal.
    `damage`: in quarantine. Times are in Unix seconds; `used_at` None: never loaded.
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


def weights_of(home: Path, found: Manifest) -> Weights:
    """The weights behind a seal, as they are now."""
    return Weights(
        found.name, found.path, view.folder_of(home, found), found.kind, found.source,
        found.revision, found.digest, found.license, found.via, found.total_bytes,
        found.sealed_at, found.verified_at, seals.used_at(home, found),
        seals.is_complete(found), found.damage,
    )  # fmt: skip
