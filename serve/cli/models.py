"""Verbs about weights: pull, ls, show, rm."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from serve.catalog import ModelSpec
from serve.cli import output, rooms
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.progress import progress
from serve.errors import NotPulled
from serve.settings import Settings
from serve.store import Held, Weights
from serve.units import show_bytes

Models = Annotated[
    list[str], typer.Argument(help="Names, aliases or repositories.", metavar="MODEL")
]
Model = Annotated[str, typer.Argument(help="A name, alias or repository.", metavar="MODEL")]


@with_settings("paths", "hub", "engine")
def pull(models: Models, settings: Settings, as_json: JsonFlag = False) -> None:
    """Fetch, verify and seal the weights of models."""
    catalog, store = rooms.catalog(settings), rooms.store(settings)
    specs = [catalog.find(name) for name in models]
    held = [store.pull(spec, progress()) for spec in specs]
    if as_json:
        output.put_json([asdict(weights) for weights in held])
    else:
        rows = [(w.name, show_bytes(w.total_bytes), w.revision[:12], str(w.path)) for w in held]
        output.put_table(("MODEL", "SIZE", "REVISION", "PATH"), rows)


@with_settings("paths", "hub")
def ls(
    settings: Settings,
    whole: Annotated[
        bool, typer.Option("--catalog", help="All that can be served, here or not.", metavar=" ")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the models whose weights are here."""
    held = rooms.store(settings).list()
    if whole:
        names = {row.name for row in held if row.is_complete}
        _ls_catalog(rooms.catalog(settings).specs, names, as_json)
    elif as_json:
        output.put_json([asdict(row) for row in held])
    elif held:
        rows = [
            (row.name, _size(row), row.revision[:12], _day(row.sealed_at), row.source)
            for row in held
        ]
        output.put_table(("MODEL", "SIZE", "REVISION", "SEALED", "SOURCE"), rows)
    else:
        output.say("no weights here yet; what there is to pull: inhouse ls --catalog")


def _ls_catalog(specs: tuple[ModelSpec, ...], held: set[str], as_json: bool) -> None:
    if as_json:
        output.put_json([_spec_record(spec) | {"is_here": spec.name in held} for spec in specs])
        return
    rows = [
        (
            spec.name,
            "yes" if spec.name in held else "",
            spec.parameters,
            f"{spec.context_tokens:,}",
            spec.license.commercial,
        )
        for spec in specs
    ]
    output.put_table(("MODEL", "HERE", "SIZE", "CONTEXT", "COMMERCIAL USE"), rows)


@with_settings("paths", "hub")
def show(model: Model, settings: Settings, as_json: JsonFlag = False) -> None:
    """Show what is known of a model, and of its weights if they are here."""
    spec = rooms.catalog(settings).find(model)
    weights = _weights(settings, spec)
    if as_json:
        held = asdict(weights) if weights else None
        output.put_json(_spec_record(spec) | {"weights": held})
        return
    output.put_facts([*_spec_facts(spec), *_weights_facts(spec, weights)])


def _weights(settings: Settings, spec: ModelSpec) -> Weights | None:
    try:
        return rooms.store(settings).weights(spec)
    except NotPulled:
        return None


@with_settings("paths", "hub")
def rm(models: Models, settings: Settings, as_json: JsonFlag = False) -> None:
    """Remove the weights of models from the disk."""
    catalog, store = rooms.catalog(settings), rooms.store(settings)
    names = [catalog.find(name).name for name in models]
    freed = {name: store.remove(name) for name in names}
    if as_json:
        output.put_json([{"name": name, "freed_bytes": size} for name, size in freed.items()])
    else:
        output.put_table(("MODEL", "FREED"), [(n, show_bytes(size)) for n, size in freed.items()])


def _spec_record(spec: ModelSpec) -> dict[str, Any]:
    source = {"kind": type(spec.source).__name__.removesuffix("Source").lower()}
    return asdict(spec) | {"source": source | asdict(spec.source), "origin": spec.origin}


def _spec_facts(spec: ModelSpec) -> list[tuple[str, str]]:
    facts = [
        ("model", spec.name),
        ("aliases", ", ".join(spec.aliases)),
        ("summary", spec.summary),
        ("from", spec.origin),
        ("parameters", spec.parameters),
        ("context", f"{spec.context_tokens:,} tokens"),
        ("architecture", spec.architecture),
        ("licence", f"{spec.license.name}; commercial use: {spec.license.commercial}"),
        ("", spec.license.note),
        ("tools", spec.tool_call_parser or ""),
        ("reasoning", spec.reasoning_parser or ""),
        ("vLLM flags", " ".join(f"--{name} {value}" for name, value in spec.engine_args)),
    ]
    return [(name, value) for name, value in facts if value]


def _weights_facts(spec: ModelSpec, weights: Weights | None) -> list[tuple[str, str]]:
    if weights is None:
        return [("weights", f"not here; inhouse pull {spec.name}")]
    return [
        ("weights", f"{weights.path}  ({show_bytes(weights.total_bytes)})"),
        ("revision", weights.revision),
        ("sealed", f"{_day(weights.sealed_at)}, digest {weights.digest[:16]}"),
    ]


def _size(row: Held) -> str:
    return show_bytes(row.total_bytes) if row.is_complete else "files are missing"


def _day(at_s: float) -> str:
    return datetime.fromtimestamp(at_s).strftime("%Y-%m-%d")
