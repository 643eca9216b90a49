"""What tests of house-keeping do: pull the next revision, lock, look at the disk."""

from pathlib import Path

from serve.lock import Lock, LockedFile, LockedModel
from serve.store import Access, Manifest, Store
from serve.store.leftover import Leftover
from tests.fakes.fake_hub import FakeHub
from tests.store.models import HUB_SPEC, REPO, no_convert, no_wheel


def disk_bytes(tmp_path: Path) -> int:
    """What the files of both homes take, each once, without seals and locks."""
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(
        path.stat().st_size for path in files if not {"manifests", ".locks"} & set(path.parts)
    )


def renew(store: Store, hub: FakeHub, **files: bytes) -> Manifest:
    """The repository has other files now, and the store has them."""
    hub.repos[REPO] |= files
    store.pull(HUB_SPEC, renew=True)
    return store.manifest(HUB_SPEC)


def locked(*held: Manifest) -> Lock:
    """A lock that names exactly these."""
    return Lock(
        tuple(
            LockedModel(
                one.name, one.kind, one.source, one.revision, one.license, HUB_SPEC.digest,
                one.digest,
                tuple(LockedFile(file.path, file.size, file.sha256) for file in one.files),
            )
            for one in held
        )
    )  # fmt: skip


def with_lock(tmp_path: Path, hub: FakeHub, lock: Lock) -> Store:
    access = Access(hub.endpoint, None, tmp_path / "hf", no_convert, no_wheel)
    return Store(tmp_path / "home", access, lock=lock)


def facts(found: tuple[Leftover, ...]) -> list[tuple[str, str]]:
    return [(one.what, one.name) for one in found]


def blob(tmp_path: Path, name: str = "") -> Path:
    return tmp_path / "hf" / "hub" / "models--org--tiny" / "blobs" / name
