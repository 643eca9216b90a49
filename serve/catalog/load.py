"""Catalog files → Catalog. Every complaint names file, line and key, and offers a near match."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serve.catalog.catalog import Catalog
from serve.catalog.facts import Extension, Facts, GeometryFacts, Sampling, ToolTemplate
from serve.catalog.rules import NAME, PATTERNS, SOURCES
from serve.catalog.sound import is_sound
from serve.catalog.source import Source, near, read_source
from serve.catalog.spec import License, ModelSpec
from serve.shipped import shipped
from serve.sources import BundleSource, DirSource, HubSource, ModelScopeSource, WheelSource
from serve.sources import Source as WeightsSource

_Entry = Mapping[str, Any]  # of a file in which nothing is wrong

_NAME = re.compile(NAME)
SHIPPED = "models.yaml"
# What neither the entry nor its family says; None for the rest.
_UNSAID: _Entry = {
    "languages": (), "sampling": {}, "sampling_without_thinking": {}, "engine_args": {},
    "summary": "",
}  # fmt: skip
_COMMERCIAL: Mapping[Any, Any] = {True: "yes", False: "no"}  # as YAML reads a bare yes and no
_SAMPLING = (
    ("temperature", float), ("top_p", float), ("top_k", int), ("min_p", float),
    ("repetition_penalty", float), ("presence_penalty", float),
)  # fmt: skip


def load_catalog(overlay: Path | None = None) -> Catalog:
    """The shipped catalog, with the entries of `overlay` replacing those of the same name or added.

    Raises CatalogError(place "file:line", key path, problem, suggestion).
    """
    return parse_catalog([shipped(SHIPPED), *([overlay] if overlay is not None else [])])


def parse_catalog(paths: Iterable[Path]) -> Catalog:
    """The catalog of these files, the later ones laid over the earlier ones."""
    pages = [_checked(read_source(path)) for path in paths]
    table = _Table(
        {name: _license(entry) for page in pages for name, entry in _part(page, "licenses")},
        {name: entry for page in pages for name, entry in _part(page, "families")},
    )
    homes = {name: (page, entry) for page in pages for name, entry in _part(page, "models")}
    specs = [
        (spec, page)
        for name, (page, entry) in homes.items()
        for spec in _specs(name, entry, page, table)
    ]
    specs = _yielding(specs, pages)
    _refuse_twins(specs)
    return Catalog(tuple(spec for spec, _ in specs))


@dataclass(frozen=True, slots=True)
class _Table:
    """What entries refer to, of all files together."""

    licenses: dict[str, License]
    families: dict[str, _Entry]


def _checked(source: Source) -> Source:
    if not is_sound(source.content):
        # Pydantic takes longer to import than the files to be read; it knows what to say.
        from serve.catalog import complaint

        found = complaint.complaint(source)
        if found is not None:
            raise found
    return source


def _part(page: Source, name: str) -> Iterable[tuple[str, _Entry]]:
    entries: Mapping[str, _Entry] = page.content.get(name, {})
    return entries.items()


def _license(entry: _Entry) -> License:
    commercial = entry["commercial"]
    return License(entry["name"], _COMMERCIAL.get(commercial, commercial), entry.get("note", ""))


def _specs(name: str, entry: _Entry, page: Source, table: _Table) -> Iterator[ModelSpec]:
    """The spec of an entry, then one for each of its variants."""
    key = ("models", name)
    if not _NAME.fullmatch(name):
        raise page.error(key, f"{PATTERNS[NAME]}: {name!r}")
    spec = _spec(name, entry, page, table)
    yield spec
    for variant, repo in entry.get("variants", {}).items():
        label = f"{name}:{variant}"
        if not _NAME.fullmatch(label):
            raise page.error((*key, "variants", variant), f"{PATTERNS[NAME]}: {label!r}")
        yield replace(
            spec,
            name=label,
            source=HubSource(repo),
            aliases=(),
            variant_of=name,
            alternatives=_elsewhere(repo, _value(entry, table, "modelscope"), is_variant=True),
            facts=replace(spec.facts, weights_bytes=None),
        )


def _spec(name: str, entry: _Entry, page: Source, table: _Table) -> ModelSpec:
    key, family = ("models", name), entry["family"]
    if family not in table.families:
        suggestion = near(family, table.families)
        raise page.error((*key, "family"), f"there is no such family: {family}", suggestion)

    def value(field: str) -> Any:
        return _value(entry, table, field)

    for field in ("architecture", "license", "context", "parameters"):
        if value(field) is None:
            raise page.error((*key, field), f"is missing here and in the family {family}")
    if value("license") not in table.licenses:
        suggestion = near(value("license"), table.licenses)
        problem = f"there is no such entry under licenses: {value('license')}"
        raise page.error((*key, "license"), problem, suggestion)
    extension: _Entry | None = value("extension")
    if extension is not None and extension["context"] <= value("context"):
        problem = f"must be longer than the context of {value('context')}: {extension['context']}"
        raise page.error((*key, "extension", "context"), problem)
    remote_code: str | None = value("remote_code")
    defaults = table.families[family].get("engine_args", {})
    return ModelSpec(
        name=name,
        family=family,
        source=_weights_source(entry, page.path.parent),
        license=table.licenses[value("license")],
        architecture=value("architecture"),
        context_tokens=value("context"),
        parameters=value("parameters"),
        aliases=tuple(entry.get("aliases", ())),
        summary=value("summary"),
        tool_call_parser=value("tool_call_parser"),
        reasoning_parser=value("reasoning_parser"),
        engine_args=tuple({**defaults, **entry.get("engine_args", {})}.items()),
        extension=_extension(extension) if extension is not None else None,
        remote_code=None if remote_code == "needed" else remote_code,
        needs_remote_code=remote_code not in (None, "unneeded"),
        alternatives=_elsewhere(entry.get("repo"), value("modelscope"), is_variant=False),
        facts=_facts(entry, value),
    )


def _value(entry: _Entry, table: _Table, field: str) -> Any:
    """What the entry says of this, else what its family says."""
    owner = entry if field in entry else table.families[entry["family"]]
    return owner.get(field, _UNSAID.get(field))


def _extension(entry: _Entry) -> Extension:
    args: Mapping[str, Any] | None = entry.get("engine_args")
    return Extension(
        entry["context"], entry["how"], tuple(args.items()) if args is not None else None
    )


def _facts(entry: _Entry, value: Callable[[str], Any]) -> Facts:
    template: _Entry | None = value("tool_template")
    geometry: _Entry | None = entry.get("geometry")
    return Facts(
        languages=tuple(value("languages")),
        sampling=_sampling(value("sampling")),
        sampling_without_thinking=_sampling(value("sampling_without_thinking")),
        tool_template=ToolTemplate(**template) if template is not None else None,
        geometry=GeometryFacts(**geometry) if geometry is not None else None,
        weights_bytes=entry.get("weights_bytes"),
        recommended=entry.get("recommended"),
    )


def _sampling(entry: _Entry) -> Sampling:
    return tuple((key, kind(entry[key])) for key, kind in _SAMPLING if entry.get(key) is not None)


def _weights_source(entry: _Entry, folder: Path) -> WeightsSource:
    """The entry's own source; paths are relative to the folder of the catalog file."""
    match {name: entry[name] for name in SOURCES if entry.get(name) is not None}:
        case {"repo": repo}:
            return HubSource(repo, entry.get("revision") or "main")
        case {"wheel": wheel}:
            return WheelSource(**wheel)
        case {"dir": place}:
            return DirSource((folder / Path(place).expanduser()).resolve())
        case {"bundle": place}:
            return BundleSource((folder / Path(place).expanduser()).resolve())
    return ModelScopeSource(entry["modelscope"], entry.get("revision") or "master")


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
    specs: list[tuple[ModelSpec, Source]], pages: list[Source]
) -> list[tuple[ModelSpec, Source]]:
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
        (_without(spec, {a for a in spec.aliases if owner[a] is not page}), page)
        for spec, page in specs
        if owner[spec.name] is page or spec.variant_of is None
    ]


def _without(spec: ModelSpec, lost: Collection[str]) -> ModelSpec:
    if not lost:
        return spec
    return replace(spec, aliases=tuple(alias for alias in spec.aliases if alias not in lost))


def _refuse_twins(specs: list[tuple[ModelSpec, Source]]) -> None:
    owners: dict[str, str] = {}
    for spec, page in specs:
        for label in (spec.name, *spec.aliases):
            if label in owners:
                key = ("models", spec.name, *(["aliases"] if label != spec.name else []))
                raise page.error(key, f"{label!r} is already a name of {owners[label]}")
            owners[label] = spec.name
