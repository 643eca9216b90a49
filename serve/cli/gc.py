"""`inhouse gc`: what nobody needs any more, what it would free, and away with it."""

import time
from dataclasses import asdict
from typing import Annotated

import typer

from serve.cli import output, rooms
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.served import served_names
from serve.errors import SettingsError
from serve.lock import read_lock
from serve.settings import Settings
from serve.units import parse_seconds, show_ago, show_bytes

# Why something goes: `rev` is the revision, `ago` how long it lies there, or was not used.
_WHY = {
    "superseded": "revision {rev}, pulled {ago}: a newer one is here",
    "quarantined": "revision {rev} is in quarantine: a file is damaged",
    "unused": "revision {rev}, last used {ago}",
    "removal": "the removal of revision {rev} was cut short",
    "partial": "a download that was cut short {ago}",
    "arrival": "an import that was cut short {ago}",
    "aside": "a damaged file, put aside {ago}",
    "unsealed": "what a pull left that was cut short {ago}",
    "unnamed": "a file of a revision that is gone",
    "view": "links to weights that are gone",
}


@with_settings("paths", "hub")
def gc(
    settings: Settings,
    is_applied: Annotated[
        bool, typer.Option("--apply", help="Remove it; without this it is only shown.", metavar=" ")
    ] = False,
    unused: Annotated[
        str | None,
        typer.Option(
            "--unused", help="Weights too that were not served for so long.", metavar="TIME"
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what nobody needs any more on the disk, and what it would free."""
    unused_s = _seconds(unused)
    lock = read_lock(settings.paths.lock) if settings.paths.lock.exists() else None
    store = rooms.store(settings, lock)
    look = store.clear if is_applied else store.leftovers
    found = look(unused_s, served_names(settings))
    freed_bytes = sum(one.freed_bytes for one in found if not one.is_busy)
    if as_json:
        records = [asdict(one) | {"at": output.moment(one.at)} for one in found]
        record = {"is_applied": is_applied, "freed_bytes": freed_bytes, "leftovers": records}
        output.put_json(record | {"lock": settings.paths.lock if lock else None})
        return
    rows = [
        (one.name, show_bytes(one.freed_bytes), _why(one.what, one.revision, one.at, one.is_busy))
        for one in found
    ]
    if rows:
        output.put_table(("OF", "FREES", "WHAT"), rows)
    if lock is None:
        output.say(f"no lock file here ({settings.paths.lock}), so nothing is kept for its sake")
    output.say(_summary(len(rows), freed_bytes, is_applied))


def _seconds(unused: str | None) -> float | None:
    try:
        return None if unused is None else parse_seconds(unused)
    except ValueError as error:
        raise SettingsError("flag", "--unused", str(error)) from error


def _why(what: str, revision: str, at: float, is_busy: bool) -> str:
    why = _WHY[what].format(rev=revision[:12], ago=show_ago(time.time() - at))
    return f"{why}; stays while a pull or an import is at work" if is_busy else why


def _summary(count: int, freed_bytes: int, is_applied: bool) -> str:
    if count == 0:
        return "nothing to clear away"
    if is_applied:
        return f"freed {show_bytes(freed_bytes)}"
    return f"would free {show_bytes(freed_bytes)}; to do it: inhouse gc --apply"
