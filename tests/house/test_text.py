"""What no file of the project holds."""

import re
from pathlib import Path

import pytest

from tests.house.source import ROOT, project_files

# Pieces are put together here, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of one machine": re.compile("/" + "work/|/" + "tmp/w/"),
    "an index's host; pip's settings choose it": re.compile(
        "pypi" + r"\.org|python" + r"hosted\.org|/" + r"opt/(?:pypi|wheels)"
    ),
    "something to be done; do it, or leave it out": re.compile(
        r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b|\bplace" + r"holder\b", re.IGNORECASE
    ),
    "a secret": re.compile(r"\b(?:hf" + r"_[A-Za-z0-9]{30,}|sk" + r"-[A-Za-z0-9]{30,})"),
    "a line that a merge left": re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE),
}
TEXTS = [path for path in project_files() if path.suffix not in (".png", ".gguf", ".safetensors")]


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_no_file_holds(rule: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line_of(text, match)}: {match[0]!r}: {rule}"
        for path in TEXTS
        for text in [path.read_text(errors="replace")]
        for match in FORBIDDEN[rule].finditer(text)
    ]
    assert not found, "\n" + "\n".join(found)


def line_of(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1


def test_scripts_can_be_run() -> None:
    scripts = [path for path in (ROOT / "scripts").iterdir() if not path.suffix and path.is_file()]
    mute = [path.name for path in [*scripts, ROOT / ".ci" / "run"] if not is_program(path)]
    assert not mute, f"not executable, or without #!: {mute}"


def is_program(path: Path) -> bool:
    return path.read_bytes().startswith(b"#!") and bool(path.stat().st_mode & 0o111)


def test_no_file_is_large() -> None:
    large = [path.name for path in project_files() if path.stat().st_size > 512 * 1024]
    assert not large, f"larger than 512 KiB: {large}"
