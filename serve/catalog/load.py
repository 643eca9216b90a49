"""Catalog files → Catalog. Every complaint names file, line and key, and offers a near match."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from serve.catalog.catalog import Catalog
from serve.catalog.schema import CatalogFile, Defaults, LicenseEntry, ModelEntry, known_keys
from serve.catalog.source import Source, read_source
from serve.catalog.spec import ModelSpec
from serve.errors import CatalogError
from serve.shipped import shipped
from serve.sources import DirSource, HubSource, WheelSource

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(:[a-z0-9][a-z0-9._-]*)?")
SHIPPED = "models.yaml"


def load_catalog(overlay: Path | None = None) -> Catalog:
    """The shipped catalog, with the entries of `overlay` replacing those of the same name or added.

    Raises CatalogError(place "file:line", key path, problem, suggestion).
    """
    return parse_catalog([shipped(SHIPPED), *([overlay] if overlay is not None else [])])


def parse_catalog(paths: Iterable[Path]) -> Catalog:
    """The catalog of these files, the later ones laid over the earlier ones."""
    pages = [_page(read_source(path)) for path in paths]
    table = _Table(
        {name: entry for page in pages for name, entry in page.content.licenses.items()},
        {name: entry for page in pages for name, entry in page.content.families.items()},
    )
    homes = {name: page for page in pages for name in page.content.models}
    specs = [
        (spec, page)
        for name, page in homes.items()
        for spec in _specs(name, page.content.models[name], page.source, table)
    ]
    _refuse_twins(specs)
    return Catalog(tuple(spec for spec, _ in specs))


@dataclass(frozen=True, slots=True)
class _Page:
    source: Source
    content: CatalogFile


@dataclass(frozen=True, slots=True)
class _Table:
    """What entries refer to, of all files together."""

    licenses: dict[str, LicenseEntry]
    families: dict[str, Defaults]


def _page(source: Source) -> _Page:
    try:
        return _Page(source, CatalogFile.model_validate(source.content))
    except ValidationError as error:
        raise _first_complaint(source, error) from None


def _first_complaint(source: Source, error: ValidationError) -> CatalogError:
    # A misspelt key is also a missing one: the spelling is the better news.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    key = tuple(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        return source.error(key, "is not a key of a catalog", _near(key[-1], known_keys(key)))
    if first["type"] == "missing":
        return source.error(key, "is missing")
    return source.error(key, f"{first['msg']}: {first['input']!r}")


def _specs(name: str, entry: ModelEntry, source: Source, table: _Table) -> Iterator[ModelSpec]:
    """The spec of an entry, then one for each of its variants."""
    key = ("models", name)
    for label, at in [(name, key), *((alias, (*key, "aliases")) for alias in entry.aliases)]:
        if not NAME.fullmatch(label):
            raise source.error(at, f"is not a name (a-z 0-9 . _ - and one colon): {label!r}")
    spec = _spec(name, entry, source, table)
    yield spec
    for variant, repo in entry.variants.items():
        label = f"{name}:{variant}"
        if not NAME.fullmatch(label):
            raise source.error((*key, "variants", variant), f"is not a name: {label!r}")
        yield replace(spec, name=label, source=HubSource(repo), aliases=())


def _spec(name: str, entry: ModelEntry, source: Source, table: _Table) -> ModelSpec:
    key = ("models", name)
    if entry.family not in table.families:
        near = _near(entry.family, table.families)
        raise source.error((*key, "family"), f"there is no such family: {entry.family}", near)
    family = table.families[entry.family]

    def value(field: str) -> Any:
        return getattr(entry if field in entry.model_fields_set else family, field)

    for field in ("architecture", "license", "context", "parameters"):
        if value(field) is None:
            raise source.error((*key, field), f"is missing here and in the family {entry.family}")
    if value("license") not in table.licenses:
        near = _near(value("license"), table.licenses)
        problem = f"there is no such entry under licenses: {value('license')}"
        raise source.error((*key, "license"), problem, near)
    return ModelSpec(
        name=name,
        family=entry.family,
        source=_weights_source(entry, source, key),
        license=table.licenses[value("license")].license(),
        architecture=value("architecture"),
        context_tokens=value("context"),
        parameters=value("parameters"),
        aliases=tuple(entry.aliases),
        summary=value("summary"),
        tool_call_parser=value("tool_call_parser"),
        reasoning_parser=value("reasoning_parser"),
        engine_args=tuple({**family.engine_args, **entry.engine_args}.items()),
    )


def _weights_source(
    entry: ModelEntry, source: Source, key: tuple[str, ...]
) -> HubSource | WheelSource | DirSource:
    sources: list[HubSource | WheelSource | DirSource] = []
    if entry.repo is not None:
        sources.append(HubSource(entry.repo, entry.revision))
    if entry.wheel is not None:
        sources.append(WheelSource(**entry.wheel.model_dump()))
    if entry.dir is not None:
        sources.append(DirSource((source.path.parent / entry.dir.expanduser()).resolve()))
    if len(sources) != 1:
        raise source.error(key, "must have exactly one of: repo, wheel, dir")
    if entry.repo is None and "revision" in entry.model_fields_set:
        raise source.error((*key, "revision"), "goes with repo only")
    return sources[0]


def _refuse_twins(specs: list[tuple[ModelSpec, _Page]]) -> None:
    owners: dict[str, str] = {}
    for spec, page in specs:
        for label in (spec.name, *spec.aliases):
            if label in owners:
                key = ("models", spec.name, *(["aliases"] if label != spec.name else []))
                raise page.source.error(key, f"{label!r} is already a name of {owners[label]}")
            owners[label] = spec.name


def _near(word: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)
