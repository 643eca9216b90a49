"""The only printer. stdout is data: a table for people or JSON for programs; stderr is talk."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from serve.cli.columns import cells, columns
from serve.cli.errors import USAGE, tell
from serve.errors import InhouseError

_TABLE_GAP, _FACTS_GAP = 3, 2
# Without a terminal nothing needs to be cut: `inhouse ls | grep` sees whole lines.
_PIPE_COLUMNS = 10_000
_STYLES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
# What a terminal would obey is shown instead: names and messages come from others too.
_HARMLESS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)
}


def say(text: str, style: str = "") -> None:
    """One line of talk."""
    _talk(_styled(_harmless(text), style, sys.stderr))


def put(text: str, end: str = "\n") -> None:
    """Data as it is, at once: no markup, no wrapping."""
    print(text, end=end, flush=True)


def put_json(record: Any) -> None:
    """Data for programs: one JSON document."""
    put(json.dumps(record, default=_plain, indent=2, ensure_ascii=False))


def put_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Data for people. The last column may wrap, the others keep together."""
    lines = [left + last for left, last in columns(_cleaned([head, *rows]), _TABLE_GAP, width())]
    rule = "─" * min(max(map(cells, lines)), width())
    put(_styled(lines[0], "bold", sys.stdout))
    put("\n".join([rule, *lines[1:]]))


def put_facts(rows: Sequence[tuple[str, str]]) -> None:
    """Data for people: one fact a line."""
    lines = columns(_cleaned(rows), _FACTS_GAP, width())
    put("\n".join(_styled(name, "bold", sys.stdout) + value for name, value in lines))


def moment(at_s: float) -> str:
    """A point in time (Unix seconds) for programs: ISO 8601, in UTC."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def day(at_s: float) -> str:
    """A point in time (Unix seconds) as its local date."""
    return datetime.fromtimestamp(at_s).strftime("%Y-%m-%d")


def width() -> int:
    """How many columns a line of data may have."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_COLUMNS


def put_check(name: str, is_ok: bool, found: str, cure: str | None, is_needed: bool = True) -> None:
    """One line of `doctor`, and what would mend it below."""
    bad = ("missing", "red") if is_needed else ("advice ", "yellow")
    word, style = ("ok     ", "green") if is_ok else bad
    mark, name = _styled(word, style, sys.stdout), _styled(name, "bold", sys.stdout)
    put(f"{mark}  {name}: {_harmless(found)}")
    if cure and not is_ok:
        put(f"         cure: {_harmless(cure)}")


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
    _talk(f"{_styled('error', 'bold red', sys.stderr)}: {_harmless(sentence)}")
    if hint:
        _talk(f"\n{_styled('hint', 'bold cyan', sys.stderr)}: {_harmless(hint)}")


def _talk(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _styled(text: str, style: str, stream: TextIO) -> str:
    """In colour where there is a terminal that has not asked to be left alone."""
    is_plain = not style or not stream.isatty() or os.environ.get("NO_COLOR")
    if is_plain or os.environ.get("TERM") == "dumb":
        return text
    codes = ";".join(str(_STYLES[word]) for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"


def _harmless(text: str) -> str:
    return text.translate(_HARMLESS)


def _cleaned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[_harmless(cell) for cell in row] for row in rows]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no JSON for {type(value)}")
