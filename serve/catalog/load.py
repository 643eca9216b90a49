"""Catalog files → Catalog. Every complaint names file, line and key, and offers a near match."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from serve.catalog.catalog import Catalog
from serve.catalog.facts import Facts, GeometryFacts, ToolTemplate
from serve.catalog.schema import (
    NAME,
    PATTERNS,
    CatalogFile,
    Defaults,
    ExtensionEntry,
    LicenseEntry,
    ModelEntry,
    ToolTemplateEntry,
    known_keys,
    pairs,
)
from serve.catalog.source import Source, read_source
from serve.catalog.spec import ModelSpec
from serve.errors import CatalogError
from serve.shipped import shipped
from serve.sources import BundleSource, DirSource, HubSource, ModelScopeSource, WheelSource
from serve.sources import Source as WeightsSource

_NAME = re.compile(NAME)
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
    specs = _yielding(specs, pages)
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
    match first["type"]:
        case "extra_forbidden":
            return source.error(key, "is not a key of a catalog", _near(key[-1], known_keys(key)))
        case "missing":
            return source.error(key, "is missing")
        case "value_error":
            return source.error(key, str(first["ctx"]["error"]))
        case "string_pattern_mismatch":
            must = PATTERNS[first["ctx"]["pattern"]]
            return source.error(key, f"{must}: {first['input']!r}")
        case _:
            return source.error(key, f"{first['msg']}: {first['input']!r}")


def _specs(name: str, entry: ModelEntry, source: Source, table: _Table) -> Iterator[ModelSpec]:
    """The spec of an entry, then one for each of its variants."""
    key = ("models", name)
    if not _NAME.fullmatch(name):
        raise source.error(key, f"{PATTERNS[NAME]}: {name!r}")
    spec = _spec(name, entry, source, table)
    yield spec
    for variant, repo in entry.variants.items():
        label = f"{name}:{variant}"
        if not _NAME.fullmatch(label):
            raise source.error((*key, "variants", variant), f"{PATTERNS[NAME]}: {label!r}")
        yield replace(
            spec,
            name=label,
            source=HubSource(repo),
            aliases=(),
            variant_of=name,
            alternatives=_elsewhere(repo, _value(entry, table, "modelscope"), is_variant=True),
            facts=replace(spec.facts, weights_bytes=None),
        )


def _spec(name: str, entry: ModelEntry, source: Source, table: _Table) -> ModelSpec:
    key = ("models", name)
    if entry.family not in table.families:
        near = _near(entry.family, table.families)
        raise source.error((*key, "family"), f"there is no such family: {entry.family}", near)

    def value(field: str) -> Any:
        return _value(entry, table, field)

    for field in ("architecture", "license", "context", "parameters"):
        if value(field) is None:
            raise source.error((*key, field), f"is missing here and in the family {entry.family}")
    if value("license") not in table.licenses:
        near = _near(value("license"), table.licenses)
        problem = f"there is no such entry under licenses: {value('license')}"
        raise source.error((*key, "license"), problem, near)
    extension: ExtensionEntry | None = value("extension")
    if extension is not None and extension.context <= value("context"):
        problem = f"must be longer than the context of {value('context')}: {extension.context}"
        raise source.error((*key, "extension", "context"), problem)
    remote_code: str | None = value("remote_code")
    return ModelSpec(
        name=name,
        family=entry.family,
        source=_weights_source(entry, source.path.parent),
        license=table.licenses[value("license")].license(),
        architecture=value("architecture"),
        context_tokens=value("context"),
        parameters=value("parameters"),
        aliases=tuple(entry.aliases),
        summary=value("summary"),
        tool_call_parser=value("tool_call_parser"),
        reasoning_parser=value("reasoning_parser"),
        engine_args=pairs({**table.families[entry.family].engine_args, **entry.engine_args}),
        extension=extension.extension() if extension is not None else None,
        remote_code=None if remote_code == "needed" else remote_code,
        needs_remote_code=remote_code not in (None, "unneeded"),
        alternatives=_elsewhere(entry.repo, value("modelscope"), is_variant=False),
        facts=_facts(entry, value),
    )


def _value(entry: ModelEntry, table: _Table, field: str) -> Any:
    """What the entry says of this, else what its family says."""
    owner = entry if field in entry.model_fields_set else table.families[entry.family]
    return getattr(owner, field)


def _facts(entry: ModelEntry, value: Callable[[str], Any]) -> Facts:
    template: ToolTemplateEntry | None = value("tool_template")
    return Facts(
        languages=tuple(value("languages")),
        sampling=value("sampling").advice(),
        sampling_without_thinking=value("sampling_without_thinking").advice(),
        tool_template=ToolTemplate(**template.model_dump()) if template is not None else None,
        geometry=GeometryFacts(**entry.geometry.model_dump()) if entry.geometry else None,
        weights_bytes=entry.weights_bytes,
    )


def _weights_source(entry: ModelEntry, folder: Path) -> WeightsSource:
    """The entry's own source; paths are relative to the folder of the catalog file."""
    if entry.repo is not None:
        return HubSource(entry.repo, entry.revision or "main")
    if entry.wheel is not None:
        return WheelSource(**entry.wheel.model_dump())
    if entry.dir is not None:
        return DirSource((folder / entry.dir.expanduser()).resolve())
    if entry.bundle is not None:
        return BundleSource((folder / entry.bundle.expanduser()).resolve())
    assert entry.modelscope is not None, "the schema lets no entry through without a source"
    return ModelScopeSource(entry.modelscope, entry.revision or "master")


def _elsewhere(
    repo: str | None, modelscope: str | None, is_variant: bool
) -> tuple[ModelScopeSource, ...]:
    """The same weights on ModelScope: under the repository that is named there, or under the same
    name of the organisation that is named, where variants are found too."""
    if repo is None or modelscope is None:
        return ()
    if "/" not in modelscope:
        return (ModelScopeSource(f"{modelscope}/{repo.split('/')[1]}"),)
    return () if is_variant else (ModelScopeSource(modelscope),)


def _yielding(
    specs: list[tuple[ModelSpec, _Page]], pages: list[_Page]
) -> list[tuple[ModelSpec, _Page]]:
    """Aliases and variants without those whose names a later file uses: what the operator calls
    something is called so, whatever the shipped catalog has come to call it."""
    owner = {
        label: page
        for page in pages  # the last one that uses a label has it
        for spec, home in specs
        if home is page
        for label in (spec.name, *spec.aliases)
    }
    return [
        (replace(spec, aliases=tuple(a for a in spec.aliases if owner[a] is page)), page)
        for spec, page in specs
        if owner[spec.name] is page or spec.variant_of is None
    ]


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
