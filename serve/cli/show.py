"""What can be served: `inhouse show`, and the list behind `inhouse ls --catalog`."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from serve.catalog import ModelSpec
from serve.cli import about, output, rooms
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.output import day
from serve.errors import NotPulled, WeightsDamaged
from serve.settings import Settings
from serve.store import Weights
from serve.units import show_bytes, show_tokens

Model = Annotated[str, typer.Argument(help="A name, alias or repository.", metavar="MODEL")]

# With less room the variants stand below their model, not beside it.
_WIDE_COLUMNS = 110
_HEAD = ("MODEL", "PARAMETERS", "CONTEXT", "COMMERCIAL", "HERE")


def list_catalog(specs: tuple[ModelSpec, ...], held: set[str], as_json: bool) -> None:
    """All specs, a blank line between families; `held`: the names of those that are here."""
    if as_json:
        output.put_json([about.record(spec) | {"is_here": spec.name in held} for spec in specs])
        return
    is_wide = output.width() >= _WIDE_COLUMNS
    head = (*_HEAD, "VARIANTS") if is_wide else _HEAD
    rows: list[tuple[str, ...]] = []
    family = ""
    for spec in specs:
        if spec.variant_of is None:
            if family not in ("", spec.family):
                rows.append(("",) * len(head))
            family = spec.family
            rows.extend(_rows(spec, _variants(spec, specs), held, is_wide))
    output.put_table(head, rows)
    output.say("conditions, sources, parsers and all the rest: inhouse show MODEL", "dim")


@with_settings("paths", "hub")
def show(model: Model, settings: Settings, as_json: JsonFlag = False) -> None:
    """Show what is known of a model, and of its weights if they are here."""
    catalog = rooms.catalog(settings)
    spec = catalog.find(model)
    weights = _weights(settings, spec)
    if as_json:
        held = asdict(weights) if weights else None
        output.put_json(about.record(spec) | {"weights": held})
        return
    variants = [each.name for each in _variants(spec, catalog.specs)]
    output.put_facts([*about.lines(spec, variants), *_weights_facts(spec, weights)])


def _variants(spec: ModelSpec, specs: tuple[ModelSpec, ...]) -> list[ModelSpec]:
    return [each for each in specs if each.variant_of == spec.name]


def _rows(
    spec: ModelSpec, variants: list[ModelSpec], held: set[str], is_wide: bool
) -> Iterator[tuple[str, ...]]:
    here = [each for each in variants if each.name in held]
    row = (
        spec.name,
        # `30.5B, 3.3B active` is `30.5B (3.3B)` in a table.
        re.sub(r", (\S+) active$", r" (\1)", spec.parameters),
        _context(spec),
        spec.license.commercial,
        " ".join([*(["yes"] if spec.name in held else []), *map(_suffix, here)]),
    )
    suffixes = " ".join(map(_suffix, variants))
    if is_wide:
        yield (*row, suffixes)
        return
    yield row
    if suffixes:
        yield (f"  {suffixes}", *[""] * (len(row) - 1))


def _suffix(variant: ModelSpec) -> str:
    return variant.name.removeprefix(variant.variant_of or "")


def _context(spec: ModelSpec) -> str:
    """`32k`, or `32k–128k` where the model has an extension that can be switched on."""
    extension = spec.extension
    if extension is None or extension.engine_args is None:
        return show_tokens(spec.context_tokens)
    return f"{show_tokens(spec.context_tokens)}–{show_tokens(extension.context_tokens)}"


def _weights(settings: Settings, spec: ModelSpec) -> Weights | None:
    store = rooms.store(settings)
    try:
        return store.weights(spec)
    except NotPulled:
        return None
    except WeightsDamaged:
        damaged = (one for one in store.list() if one.name == spec.name and one.damage)
        return next(damaged, None)


def _weights_facts(spec: ModelSpec, weights: Weights | None) -> list[tuple[str, str]]:
    if weights is None:
        return [("weights", f"not here; inhouse pull {spec.name}")]
    if weights.damage is not None:
        quarantine = f"in quarantine, {weights.damage.file} is damaged; inhouse pull {spec.name}"
        return [("weights", quarantine), ("revision", weights.revision)]
    return [
        ("weights", f"{weights.path}  ({show_bytes(weights.total_bytes)})"),
        ("revision", weights.revision),
        ("sealed", f"{day(weights.sealed_at)}, digest {weights.digest[:16]}"),
    ]
