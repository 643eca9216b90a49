"""What can be served: `inhouse show`, and the list behind `inhouse ls --catalog`."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from serve.catalog import ModelSpec
from serve.cli import output, rooms
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.output import day
from serve.errors import NotPulled
from serve.settings import Settings
from serve.store import Weights
from serve.units import show_bytes

Model = Annotated[str, typer.Argument(help="A name, alias or repository.", metavar="MODEL")]


def list_catalog(specs: tuple[ModelSpec, ...], held: set[str], as_json: bool) -> None:
    """All specs; `held`: the names of those that are here."""
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
        ("sealed", f"{day(weights.sealed_at)}, digest {weights.digest[:16]}"),
    ]
