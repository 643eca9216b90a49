"""`inhouse usage`: who used how much of what, and what it cost."""

import csv
import difflib
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from serve.cli import output
from serve.cli.books import books
from serve.cli.columns import cells
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.terms import parse_begin, split
from serve.errors import SettingsError
from serve.ledger import Usage
from serve.quota import NANOS
from serve.settings import Settings
from serve.units import show_seconds

_BY = "key, tenant, model, route, replica, status, outcome, day or month; with commas"
_NO_KEY = "(no key)"
_FIGURES = ("REQUESTS", "FAILED", "INPUT", "CACHED", "OUTPUT", "TTFT", "ENERGY", "COST", "SHARE")
_SPARED = ("ENERGY", "TTFT", "CACHED", "FAILED")  # where there is no room, in this order
_GAP = 3  # cells between columns
_KWH_J = 3.6e6
Names = Mapping[str, str]  # of keys, by id

By = Annotated[str, typer.Option("--by", help=f"{_BY}.", metavar="WHAT")]
Since = Annotated[str, typer.Option("--since", help="30d, 12h, or a date (UTC).", metavar="WHEN")]
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
    end = parse_begin(until, now, "--until") if until else now
    with books(settings) as ledger:
        known = Usage(ledger.database)
        wanted = _dimensions(by, known.dimensions)
        totals, (whole,) = known.totals(wanted, begin, end), known.totals((), begin, end)
        names = known.key_names() if "key" in wanted else {}
    if as_json:
        output.put_json([_record(wanted, total, names) for total in totals])
    elif as_csv:
        _put_csv(wanted, totals, names)
    elif whole.requests:
        _put_table(wanted, totals, whole, names)
    else:
        output.say("no requests in that time")


def _dimensions(by: str, known: Sequence[str]) -> tuple[Any, ...]:
    wanted = tuple(dict.fromkeys(split([by])))
    for word in wanted:
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            problem = f"{word!r} is none of {', '.join(known)}"
            raise SettingsError("flag", "--by", problem, near[0] if near else None)
    return wanted


def _record(by: Sequence[str], total: Any, names: Names) -> dict[str, Any]:
    """For programs: ids as they are, money also in the currency of the prices."""
    group = dict(zip(by, total.group, strict=True))
    if "key" in group:
        group["key_name"] = names.get(group["key"], "")
    sums = asdict(total)
    del sums["group"]
    return group | sums | {"cost": total.cost_nanos / NANOS}


def _put_csv(by: Sequence[str], totals: Iterable[Any], names: Names) -> None:
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


def _put_table(by: Sequence[str], totals: Sequence[Any], whole: Any, names: Names) -> None:
    rows = [[*_group(by, total, names), *_figures(total, whole)] for total in totals]
    if len(totals) > 1:
        rows.append([*("all", *[""] * (len(by) - 1)), *_figures(whole, whole)])
    lines = [[*(word.upper() for word in by), *_FIGURES], *rows]
    columns = [
        _right(column) if number >= len(by) else list(column)
        for number, column in enumerate(zip(*lines, strict=True))
        if any(column[1:])  # what is known of nobody is not shown
    ]
    head, *shown = zip(*fitting(columns, output.width()), strict=True)
    output.put_table(head, shown)


def fitting(columns: Sequence[list[str]], width: int) -> list[list[str]]:
    """Without those that a narrow terminal has no room for; `--json` has them all."""
    kept = list(columns)
    for name in _SPARED:
        if sum(max(map(cells, column)) + _GAP for column in kept) - _GAP <= width:
            break
        kept = [column for column in kept if column[0].strip() != name]
    return kept


def _group(by: Sequence[str], total: Any, names: Names) -> list[str]:
    return [
        (_key(text, names) if word == "key" else text) or "-"
        for word, text in zip(by, total.group, strict=True)
    ]


def _key(id: str, names: Names) -> str:
    if not id:
        return _NO_KEY
    return f"{names[id]} ({id})" if id in names else id


def _figures(total: Any, whole: Any) -> list[str]:
    return [
        f"{total.requests:,}",
        f"{total.errors:,}" if whole.errors else "",
        f"{total.input_tokens:,}",
        f"{total.cached_tokens:,}" if whole.cached_tokens else "",
        f"{total.output_tokens:,}",
        "" if total.ttft_s is None else show_seconds(total.ttft_s),
        "" if total.energy_j is None else _energy(total.energy_j),
        _cost(total.cost_nanos, whole.cost_nanos),
        f"{100 * _weight(total, whole):.1f} %",
    ]


def _cost(nanos: int, whole_nanos: int) -> str:
    """In the currency of the prices; small sums to a hundredth of its hundredth."""
    if not whole_nanos:
        return ""
    return f"{nanos / NANOS:,.{2 if whole_nanos >= 100 * NANOS else 4}f}"


def _weight(total: Any, whole: Any) -> float:
    """Of the cost; of the tokens where nothing has a price."""
    if whole.cost_nanos:
        return float(total.cost_nanos / whole.cost_nanos)
    tokens = whole.input_tokens + whole.output_tokens
    return (total.input_tokens + total.output_tokens) / tokens if tokens else 0.0


def _energy(joules: float) -> str:
    return f"{joules / _KWH_J:,.3f} kWh" if joules >= _KWH_J / 10 else f"{joules:,.0f} J"


def _right(column: Sequence[str]) -> list[str]:
    width = max(map(len, column))
    return [cell.rjust(width) for cell in column]
