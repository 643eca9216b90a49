"""`inhouse verify`: every byte of the weights that are here is read again."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from serve.cli import output, rooms
from serve.cli.errors import tell
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.progress import progress
from serve.errors import NotPulled, StoreError
from serve.settings import Settings
from serve.store import Store, Weights
from serve.units import show_bytes
from serve.wire import to_wire

Models = Annotated[
    list[str] | None, typer.Argument(help="Names, aliases or repositories.", metavar="MODEL")
]


@with_settings("paths", "hub")
def verify(
    settings: Settings,
    models: Models = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All weights that are here.", metavar=" ")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Read weights again, every byte, and compare them with what was verified."""
    if bool(models) == everything:
        raise typer.BadParameter("name models, or give --all for all that are here")
    store = rooms.store(settings)
    rows: list[tuple[Weights, StoreError | None]] = []
    problems: list[StoreError] = []
    for held in _held(settings, store, models):
        try:
            rows.append((store.verify(held, progress()), None))
        except StoreError as error:
            rows.append((held, error))
            problems.append(error)
    if as_json:
        output.put_json([_record(held, problem) for held, problem in rows])
    elif rows:
        table = [
            (held.name, held.revision[:12], show_bytes(held.total_bytes), _result(problem))
            for held, problem in rows
        ]
        output.put_table(("MODEL", "REVISION", "SIZE", "RESULT"), table)
    else:
        output.say("no weights here yet; what there is to pull: inhouse ls --catalog")
    if problems:
        raise problems[0]


def _held(settings: Settings, store: Store, models: list[str] | None) -> list[Weights]:
    """All revisions of the models named, or of all; NotPulled for a name that has none here."""
    held = store.list()
    if not models:
        return list(held)
    names = {one.name for one in held}
    catalog = rooms.catalog(settings)
    # What lies here may have left the catalog since.
    wanted = [name if name in names else catalog.find(name).name for name in models]
    for name in wanted:
        if name not in names:
            raise NotPulled(name)
    return [one for name in dict.fromkeys(wanted) for one in held if one.name == name]


def _record(held: Weights, problem: StoreError | None) -> dict[str, Any]:
    shown = ("name", "path", "revision", "digest", "total_bytes", "verified_at")
    record = {name: value for name, value in asdict(held).items() if name in shown}
    return record | {
        "verified_at": output.moment(held.verified_at),
        "is_verified": problem is None,
        "problem": None if problem is None else to_wire(problem),
    }


def _result(problem: StoreError | None) -> str:
    if problem is None:
        return "as it was verified"
    file = getattr(problem, "file", None)
    return f"DAMAGED: {file}" if file else tell(problem).sentence
