"""`inhouse pull`: fetch, verify and seal."""

from dataclasses import asdict
from typing import Annotated

import typer

from serve.catalog import ModelSpec
from serve.cli import output, rooms
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.locked import LockedFlag, wished_lock, wished_specs
from serve.cli.progress import progress
from serve.errors import SettingsError
from serve.settings import Settings
from serve.sources import parse_source
from serve.units import show_bytes

Models = Annotated[
    list[str] | None,
    typer.Argument(help="Names, aliases or repositories.", metavar="MODEL"),
]
SourceFlag = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="SOURCE",
        help="Where from, instead of the catalog's source: hf:ORG/NAME[@REVISION], "
        "modelscope:ORG/NAME[@REVISION], dir:PATH, bundle:PATH, or a kind alone, such as "
        "modelscope, which means the entry's own source of that kind.",
    ),
]
RenewFlag = Annotated[
    bool,
    typer.Option(
        "--renew",
        metavar=" ",
        help="Ask the source which revision it has now, instead of keeping the one that is here.",
    ),
]


@with_settings("paths", "hub", "policy", "engine")
def pull(
    settings: Settings,
    models: Models = None,
    source: SourceFlag = None,
    renew: RenewFlag = False,
    is_locked: LockedFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Fetch, verify and seal the weights of models."""
    if not models and not is_locked:
        raise typer.BadParameter("name models, or give --locked for all that are locked")
    lock = wished_lock(settings, is_locked)
    store, shown = rooms.store(settings, lock), progress()
    specs = wished_specs(rooms.catalog(settings), models or (), lock)
    if source is not None:
        specs = [_from(spec, source) for spec in specs]
    held = [store.pull(spec, shown, renew) for spec in specs]
    if as_json:
        output.put_json([asdict(weights) for weights in held])
    else:
        rows = [(w.name, show_bytes(w.total_bytes), w.revision[:12], str(w.path)) for w in held]
        output.put_table(("MODEL", "SIZE", "REVISION", "PATH"), rows)


def _from(spec: ModelSpec, text: str) -> ModelSpec:
    """The same model from the source that the operator named."""
    try:
        return spec.with_source(parse_source(text))
    except ValueError as error:
        raise SettingsError("flag", "--source", str(error)) from error
    except LookupError as error:
        own = ", ".join(sorted({one.kind for one in (spec.source, *spec.alternatives)}))
        problem = f"{spec.name} has no source of this kind ({own}): {text}"
        raise SettingsError("flag", "--source", problem) from error
