"""Verbs about weights that are here: ls, rm."""

from dataclasses import asdict
from typing import Annotated

import typer

from serve.cli import output, rooms
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.output import day
from serve.cli.show import list_catalog
from serve.settings import Settings
from serve.store import Weights
from serve.units import show_bytes

Models = Annotated[
    list[str], typer.Argument(help="Names, aliases or repositories.", metavar="MODEL")
]


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
        list_catalog(rooms.catalog(settings).specs, names, as_json)
    elif as_json:
        output.put_json([asdict(row) for row in held])
    elif held:
        rows = [
            (row.name, _size(row), row.revision[:12], day(row.sealed_at), row.source)
            for row in held
        ]
        output.put_table(("MODEL", "SIZE", "REVISION", "SEALED", "SOURCE"), rows)
    else:
        output.say("no weights here yet; what there is to pull: inhouse ls --catalog")


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


def _size(row: Weights) -> str:
    return show_bytes(row.total_bytes) if row.is_complete else "files are missing"
