"""Which of the seals answers a spec, and how the files behind it are had again. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from serve.catalog import ModelSpec
from serve.lock import LockedModel
from serve.sources import (
    BundleSource,
    DirSource,
    HubSource,
    ModelScopeSource,
    Source,
    WheelSource,
    show_source,
)
from serve.store.manifest import Manifest


def answering(
    seals: Iterable[Manifest], spec: ModelSpec, locked: LockedModel | None
) -> tuple[Manifest, ...]:
    """The seals that may stand for the spec, the newest first.

    Of what is held under the spec's name these may: what came from the spec's own source, and what
    the operator chose for this name (`--source`, an imported bundle) whatever the catalog says. A
    spec whose source is itself a choice wants that source only. Under a lock just the locked
    revision may.
    """
    found = [
        one
        for one in seals
        if one.name == spec.name
        and (locked is None or one.revision == locked.revision)
        and ((one.is_chosen and not spec.is_chosen) or _is_from(one, spec, locked))
    ]
    return tuple(sorted(found, key=lambda one: -one.sealed_at))


def asked_of(spec: ModelSpec) -> str:
    """What the spec asks for inside its source, as a manifest records it."""
    match spec.source:
        case HubSource(revision=revision) | ModelScopeSource(revision=revision):
            return revision
        case WheelSource(member=member):
            return member
        case DirSource() | BundleSource():
            return ""


def pinned(source: Source, revision: str | None) -> Source:
    """The source at this revision, where a source can be asked for one (ModelScope tells no
    commits: the revision is the digest of the files)."""
    if revision is not None and isinstance(source, HubSource):
        return replace(source, revision=revision)
    return source


def origin_of(found: Manifest, spec: ModelSpec) -> Source | None:
    """Where the files of a seal can be had again, at its very revision; None: nobody knows."""
    match found.kind:
        case "hf":
            return HubSource(found.source, found.revision)
        case "modelscope":
            return ModelScopeSource(found.source.removeprefix("modelscope:"), found.asked)
        case "dir" if found.is_yours:
            return DirSource(Path(found.source))
        case _:
            own = (spec.source, *spec.alternatives)
            return next((one for one in own if show_source(one) == found.source), None)


def _is_from(found: Manifest, spec: ModelSpec, locked: LockedModel | None) -> bool:
    if isinstance(spec.source, BundleSource):
        return found.via.startswith("bundle")
    if (found.kind, found.source) != (spec.source.kind, spec.origin):
        return False
    asked = asked_of(spec)
    match spec.source:
        case HubSource() | ModelScopeSource():
            return locked is not None or asked in (found.asked, found.revision)
        case WheelSource(sha256=sha256):
            return (found.asked, found.revision) == (asked, sha256)
        case DirSource():
            return True
