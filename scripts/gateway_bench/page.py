"""Pages, written section by section: what was not measured again stays as it was."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_WIDTH = 120
MET, MISSED, UNKNOWN = "met", "**not met**", "not measured"


@dataclass(frozen=True, slots=True)
class Aim:
    """What should be, and what is; `is_met` None: it could not be measured."""

    text: str
    measured: str
    is_met: bool | None

    @property
    def verdict(self) -> str:
        return UNKNOWN if self.is_met is None else MET if self.is_met else MISSED


@dataclass(frozen=True, slots=True)
class Section:
    """`name` finds it again in the page. `lines`: on when and how it was measured."""

    name: str
    title: str
    lines: Sequence[str]
    body: str
    aims: Sequence[Aim] = ()

    def text(self) -> str:
        parts = [f"## {self.title}", prose(" ".join(self.lines)), self.body]
        if self.aims:
            rows = [[aim.text, aim.measured, aim.verdict] for aim in self.aims]
            parts.append(table(["target", "measured", ""], rows))
        return "\n\n".join(part for part in parts if part)


def prose(text: str) -> str:
    """A paragraph, in lines as those of our other pages."""
    return textwrap.fill(
        " ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; all columns but the first that hold figures stand to the right."""
    rule = ["---" if _is_text(rows, column) else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def _is_text(rows: Sequence[Sequence[str]], column: int) -> bool:
    cells = [row[column] for row in rows if row[column] not in ("", "–")]
    return column == 0 or not all(re.match(r"[-+]?\d", cell) for cell in cells)


def write(path: Path, heading: str, order: Sequence[str], made: Section) -> None:
    """Put the section into the page, in its place; others in it are kept."""
    found = _sections(path.read_text()) if path.exists() else {}
    found[made.name] = made.text()
    names = [name for name in order if name in found]
    bodies = [f"<!-- measured: {name} -->\n{found[name]}\n<!-- end: {name} -->" for name in names]
    title, *paragraphs = heading.strip().split("\n\n")
    path.write_text("\n\n".join([title, *map(prose, paragraphs), *bodies]) + "\n")


def _sections(text: str) -> dict[str, str]:
    marks = re.finditer(r"<!-- measured: (\S+) -->\n(.*?)\n<!-- end: \1 -->", text, re.DOTALL)
    return {mark[1]: mark[2] for mark in marks}
