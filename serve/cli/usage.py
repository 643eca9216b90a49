"""`inhouse usage`: who used how much of what, and what it cost."""

import csv
import difflib
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Annotated, Any

import typer

from serve.cli import output
from serve.cli.books import books
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.terms import parse_begin, split
from serve.errors import SettingsError
from serve.ledger import Usage
from serve.quota import NANOS
from serve.settings import Settings
from serve.units import show_seconds

_BY = "key, tenant, model, route, replica, status, outcome, day or month; with commas"
_NO_KEY = "(no key)"

By = Annotated[str, typer.Option("--by", help=f"{_BY}.", metavar="WHAT")]
Since = Annotated[
    str, typer.Option("--since", help="30d, 12h, or a date (UTC).", metavar="WHEN")
]
Until = Annotated[
    str | None, typer.Option("--until", help="As --since; default now.", metavar="WHEN")
]
CsvFlag = Annotated[bool, typer.Option("--csv", help="Print CSV, for programs.", metavar=" ")]


@with_settings("paths", "ledger.url")
def usage(
    settings: Settings,
    by: By = "model",
    since: Since = "30d",
    until: Until = None,
    as_csv: CsvFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Show who used how much of what, and what it cost."""
    now = time.time()
    begin = parse_begin(since, now, "--since")
    end = parse_begin(until, now, "--until") if until else None
    with books(settings) as ledger:
        known = Usage(ledger.database)
        wanted = _dimensions(by, known.dimensions)
        totals = known.totals(wanted, begin, end)
        names = known.key_names() if "key" in wanted else {}
    if as_json:
        output.put_json([_record(wanted, total, names) for total in totals])
    elif as_csv:
        _put_csv(wanted, totals, names)
    elif not any(total.requests for total in totals):
        output.say("no requests in that time")
    else:
        _put_table(wanted, totals, names)


def _dimensions(by: str, known: Sequence[str]) -> tuple[Any, ...]:
    wanted = tuple(dict.fromkeys(split([by])))
    for word in wanted:
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            problem = f"{word!r} is none of {', '.join(known)}"
            raise SettingsError("flag", "--by", problem, near[0] if near else None)
    return wanted


def _record(by: Sequence[str], total: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """For programs: ids as they are, money also in the currency of the prices."""
    group = dict(zip(by, total.group, strict=True))
    if "key" in group:
        group["key_name"] = names.get(group["key"], "")
    sums = asdict(total)
    del sums["group"]
    return group | sums | {"cost": total.cost_nanos / NANOS}


def _put_csv(by: Sequence[str], totals: Iterable[Any], names: Mapping[str, str]) -> None:
    records = [_record(by, total, names) for total in totals]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if records:
        writer.writerow(records[0])
    writer.writerows(map(_harmless, record.values()) for record in records)
    output.put(text.getvalue(), end="")


def _harmless(value: Any) -> Any:
    """A spreadsheet would take a text that begins so for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def _put_table(by: Sequence[str], totals: Sequence[Any], names: Mapping[str, str]) -> None:
    whole = _Sums(totals)
    rows = [
        [*(_shown(word, text, names) for word, text in zip(by, total.group, strict=True)),
         *_cells(total, whole)]
        for total in totals
    ]  # fmt: skip
    if len(totals) > 1:
        rows.append([*(["all", *[""] * len(by)][: len(by)]), *_cells(whole, whole)])
    head = [*(word.upper() for word in by), *_HEAD]
    # A figure that nobody has here is not shown to anybody.
    kept = [n for n in range(len(head)) if n < len(by) or any(row[n] for row in rows)]
    aligned = [
        [_right([line[n] for line in (head, *rows)], n >= len(by))[number] for n in kept]
        for number in range(len(rows) + 1)
    ]
    output.put_table(aligned[0], aligned[1:])


_HEAD = ("REQUESTS", "FAILED", "INPUT", "CACHED", "OUTPUT", "TTFT", "ENERGY", "COST", "SHARE")


class _Sums:
    """What all groups have together; a mean of times counts each request once."""

    def __init__(self, totals: Sequence[Any]) -> None:
        for name in ("requests", "errors", "input_tokens", "cached_tokens", "output_tokens",
                     "cost_nanos"):  # fmt: skip
            setattr(self, name, sum(getattr(total, name) for total in totals))
        self.energy_j = sum(total.energy_j or 0.0 for total in totals) or None
        timed = [total for total in totals if total.ttft_s is not None]
        count = sum(total.requests for total in timed)
        self.ttft_s = sum(t.ttft_s * t.requests for t in timed) / count if count else None
