"""Verbs about weights that are here: ls, rm."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from serve.catalog import Catalog
from serve.cli import output, rooms
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.served import served_names
from serve.cli.show import list_catalog
from serve.errors import BadRequest
from serve.settings import Settings
from serve.store import Weights
from serve.units import show_ago, show_bytes

Models = Annotated[
    list[str], typer.Argument(help="Names, aliases or repositories.", metavar="MODEL")
]

# With less room what a model is called stands behind where it comes from.
_WIDE_COLUMNS = 120
_TIMES = ("sealed_at", "verified_at", "used_at")


@with_settings("paths", "hub")
def ls(
    settings: Settings,
    whole: Annotated[
        bool, typer.Option("--catalog", help="All that can be served, here or not.", metavar=" ")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the models whose weights are here."""
    held, catalog = rooms.store(settings).list(), rooms.catalog(settings)
    if whole:
        names = {row.name for row in held if row.is_complete}
        list_catalog(catalog.specs, names, as_json)
        return
    called = _called(held, catalog)
    if as_json:
        output.put_json([_record(row) | {"names": called[row.name]} for row in held])
    elif held:
        _put(held, called)
    else:
        output.say("no weights here yet; what there is to pull: inhouse ls --catalog")


@with_settings("paths", "hub")
def rm(
    models: Models,
    settings: Settings,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Even what is served now.", metavar=" ")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove the weights of models from the disk."""
    store = rooms.store(settings)
    held = {row.name for row in store.list()}
    # What lies here may have left the catalog since.
    names = [one if one in held else rooms.catalog(settings).find(one).name for one in models]
    if not is_forced:
        for name in sorted(served_names(settings).intersection(names)):
            raise BadRequest(
                f"{name} is served now (inhouse stop {name} ends that, --force removes it anyway)"
            )
    freed = {name: store.remove(name) for name in dict.fromkeys(names)}
    if not all(freed.values()) and any(one.what == "removal" for one in store.leftovers()):
        output.say("files stay while something else is pulled; then: inhouse gc --apply")
    if as_json:
        output.put_json([{"name": name, "freed_bytes": size} for name, size in freed.items()])
    else:
        output.put_table(("MODEL", "FREED"), [(n, show_bytes(size)) for n, size in freed.items()])


def _put(held: Sequence[Weights], called: Mapping[str, Sequence[str]]) -> None:
    now = time.time()
    rows: list[tuple[str, ...]] = []
    is_wide = output.width() >= _WIDE_COLUMNS
    for row in held:
        size, revision = show_bytes(row.total_bytes), row.revision[:12]
        verified = show_ago(now - row.verified_at)
        used = show_ago(now - row.used_at) if row.used_at else "never"
        names = ", ".join(called[row.name])
        if is_wide:
            source = f"{_state(row)}{row.kind}:{row.source}"
            rows.append((row.name, size, verified, used, revision, names, source))
        else:
            also = f", also {names}" if names else ""
            source = f"{_state(row)}{row.kind}:{row.source} {revision}{also}"
            rows.append((row.name, size, verified, used, source))
    more = ("REVISION", "ALSO CALLED", "FROM") if is_wide else ("FROM",)
    output.put_table(("MODEL", "SIZE", "VERIFIED", "LAST USED", *more), rows)


def _state(row: Weights) -> str:
    """What keeps the weights from being served, before anything else."""
    if row.damage is not None:
        return f"IN QUARANTINE: {row.damage.file} is damaged; "
    return "" if row.is_complete else "FILES ARE MISSING; "


def _record(row: Weights) -> dict[str, Any]:
    """For programs: times in ISO 8601, and the state in a word."""
    state = "quarantined" if row.damage else "whole" if row.is_complete else "incomplete"
    times = {name: output.moment(at) for name in _TIMES if (at := getattr(row, name))}
    return asdict(row) | {"state": state} | dict.fromkeys(_TIMES) | times


def _called(held: Sequence[Weights], catalog: Catalog) -> dict[str, list[str]]:
    """By name: what else means these weights, in the catalog or of what is here."""
    aliases = {spec.name: spec.aliases for spec in catalog.specs}
    sharing: dict[Any, list[str]] = {}
    for row in held:
        sharing.setdefault(row.path, []).append(row.name)
    called: dict[str, list[str]] = {}
    for row in held:
        others = (name for name in sharing[row.path] if name != row.name)
        called[row.name] = list(
            dict.fromkeys([*called.get(row.name, ()), *aliases.get(row.name, ()), *others])
        )
    return called
