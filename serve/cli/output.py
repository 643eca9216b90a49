"""The only printer. stdout is data: a table for people or JSON for programs; stderr is talk."""

import json
import readline  # noqa: F401  (gives input() line editing and a history)
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve.cli.errors import USAGE, tell
from serve.errors import InhouseError

# Without a terminal nothing needs to be cut: `inhouse ls | grep` sees whole lines.
_PIPE_COLUMNS = 240


def say(text: str, style: str = "") -> None:
    """One line of talk."""
    Console(stderr=True, highlight=False).print(Text(text, style), soft_wrap=True)


def put(text: str, end: str = "\n") -> None:
    """Data as it is, at once: no markup, no wrapping."""
    print(text, end=end, flush=True)


def ask(prompt: str) -> str | None:
    """A line from the terminal, with line editing; None at Ctrl-D. Ctrl-C drops the line."""
    while True:
        try:
            return input(prompt)
        except EOFError:
            put("")
            return None
        except KeyboardInterrupt:
            put("")


def put_json(record: Any) -> None:
    """Data for programs: one JSON document."""
    put(json.dumps(record, default=_plain, indent=2, ensure_ascii=False))


def put_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Data for people. The last column may wrap, the others keep together."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, title in enumerate(head):
        is_last = number == len(head) - 1
        table.add_column(title, no_wrap=not is_last, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _data().print(table)


def put_facts(rows: Sequence[tuple[str, str]]) -> None:
    """Data for people: one fact a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    _data().print(table)


def day(at_s: float) -> str:
    """A point in time (Unix seconds) as its local date."""
    return datetime.fromtimestamp(at_s).strftime("%Y-%m-%d")


def put_check(name: str, is_ok: bool, found: str, cure: str | None) -> None:
    """One line of `doctor`, and what would mend it below."""
    mark = ("ok     ", "green") if is_ok else ("missing", "yellow")
    _data().print(Text.assemble(mark, "  ", (name, "bold"), f": {found}"), soft_wrap=True)
    if cure and not is_ok:
        _data().print(Text(f"         cure: {cure}"), soft_wrap=True)


def show_error(error: InhouseError) -> int:
    """Tell what went wrong on stderr; the exit code that goes with it."""
    told = tell(error)
    _complain(told.sentence, told.hint)
    return told.exit_code


def show_usage(problem: str, command: str) -> int:
    """Tell that a command line is not understood; the exit code that goes with it."""
    sentence, _, suggestion = problem.partition(". ")
    hint = suggestion or f"{command} --help"
    _complain(sentence[:1].lower() + sentence[1:].rstrip("."), hint[:1].lower() + hint[1:])
    return USAGE


def _complain(sentence: str, hint: str | None) -> None:
    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble(("error", "bold red"), ": ", sentence), soft_wrap=True)
    if hint:
        console.print()
        console.print(Text.assemble(("hint", "bold cyan"), ": ", hint), soft_wrap=True)


def _data() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, SecretStr):
        return "**********"
    raise TypeError(f"no JSON for {type(value)}")
