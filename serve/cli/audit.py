"""`inhouse audit`: who did what, when, from where; and whether the log of it is whole."""

import json
import socket
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from serve.cli import output
from serve.cli.books import books
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.terms import parse_begin, parse_count
from serve.errors import SettingsError
from serve.settings import Settings

_HEAD = ("#", "TIME", "ACTOR", "ADDRESS", "ACTION", "OBJECT", "RESULT", "FACTS")
_FOLLOW_EVERY_S = 1.0
_OLDEST_MOMENT = 1e9  # facts that are larger are times: our numbers of that size are whole
_FORMATS = ("json", "syslog")

Since = Annotated[
    str | None, typer.Option("--since", help="30d, 12h, or a date (UTC).", metavar="WHEN")
]
Action = Annotated[
    str, typer.Option("--action", help="As key.create; key.* is all of them.", metavar="NAME")
]


@with_settings("paths", "ledger.url")
def ls(
    settings: Settings,
    since: Since = None,
    action: Action = "",
    actor: Annotated[
        str, typer.Option("--actor", help="As key:ID, cli:UID or system.", metavar="WHO")
    ] = "",
    last: Annotated[
        str, typer.Option("--last", "-n", help="The newest so many.", metavar="N")
    ] = "100",
    as_json: JsonFlag = False,
) -> None:
    """List what was done, the newest last."""
    count = parse_count(last, "--last")
    with books(settings) as ledger:
        found = list(ledger.audit.records(0, _begin(since), action, actor, count))
    if as_json:
        output.put_json(found)
    elif found:
        rows = [
            (str(r.seq), output.moment(r.at), r.actor, r.address, r.action, r.object, r.result,
             _facts(r.facts))
            for r in found
        ]  # fmt: skip
        output.put_table(_HEAD, rows)
    else:
        output.say("nothing of that kind was done")


@with_settings("paths", "ledger.url")
def verify(
    settings: Settings,
    noted: Annotated[
        str,
        typer.Option("--noted", help="What an earlier verify said: NUMBER:CODE.", metavar="HEAD"),
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Read every record; finds what was changed, removed, put in or put elsewhere."""
    with books(settings) as ledger:
        verdict = ledger.audit.verify(_noted(noted))
    head = f"{verdict.last}:{verdict.mac}"
    if as_json:
        output.put_json({"records": verdict.count, "first": verdict.first, "head": head})
    elif verdict.count:
        output.say(
            f"{verdict.count:,} records from {verdict.first:,} on, and all are whole", "green"
        )
        output.say("who notes this elsewhere can have it checked later, with --noted:", "dim")
        output.put(head)
    else:
        output.say("nothing was recorded yet")


@with_settings("paths", "ledger.url")
def export(
    settings: Settings,
    form: Annotated[
        str, typer.Option("--format", help="Lines of JSON, or of RFC 5424.", metavar="json|syslog")
    ] = "json",
    after: Annotated[
        int, typer.Option("--after", help="The last number that was exported.", min=0)
    ] = 0,
    since: Since = None,
    action: Action = "",
    is_following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as it grows.", metavar=" ")
    ] = False,
) -> None:
    """Print records for other programs, one a line."""
    if form not in _FORMATS:
        raise SettingsError("flag", "--format", f"{form!r} is none of {', '.join(_FORMATS)}")
    host = socket.gethostname()
    with books(settings) as ledger:
        while True:
            # Numbers only grow, so nothing is told twice.
            for record in ledger.audit.records(after, _begin(since), action):
                output.put(record.to_syslog(host) if form == "syslog" else record.to_json())
                after = record.seq
            if not is_following:
                return
            time.sleep(_FOLLOW_EVERY_S)


def _begin(since: str | None) -> float:
    return parse_begin(since, time.time(), "--since") if since else 0.0


def _noted(text: str) -> tuple[int, str] | None:
    number, _, code = text.partition(":")
    if not text:
        return None
    if not (number.isascii() and number.isdecimal() and code):
        raise SettingsError("flag", "--noted", "expected NUMBER:CODE, as verify prints it")
    return int(number), code


def _facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in facts.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < _OLDEST_MOMENT else output.moment(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
