"""A command starts with what it needs and nothing else: what is imported, not how long it takes."""

import gc
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.cli.app import app
from serve.cli.late import late, read
from serve.cli.verb import Verb
from tests.cli.conftest import House

# What takes long to import, and serves, pulls, signs or draws.
HEAVY = {
    "serve.bundle", "serve.control", "serve.engine", "serve.fleet", "serve.gateway",
    "serve.hardware", "serve.mirror", "serve.cli.live", "serve.store.hub",
    "asyncio", "cryptography", "hf_xet", "httpcore", "httpx", "httpx2",
    "huggingface_hub", "modelscope", "prometheus_client", "psutil", "pynvml", "requests", "rich",
    "ssl", "starlette", "urllib.request", "uvicorn",
}  # fmt: skip
START = {f"serve.cli.{name}" for name in ("app", "columns", "errors", "late", "output", "verb")}
FOR_SETTINGS = {"pydantic", "yaml", "serve.settings", "serve.catalog", "serve.store"}


def imported(folder: Path, *arguments: str) -> set[str]:
    """The modules that `inhouse …` has imported at its end."""
    argv = [sys.executable, "-X", "importtime", "-m", "serve", *arguments]
    ended = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    rows = re.findall(r"^import time: .*\| +([\w.]+)$", ended.stderr, re.M)
    assert "serve.cli.app" in rows, ended.stderr
    return set(rows)


@pytest.mark.parametrize("arguments", [("ls",), ("ls", "--json"), ("show", "tiny")])
def test_a_listing_imports_nothing_that_pulls_or_serves(
    house: House, arguments: tuple[str, ...]
) -> None:
    assert house.run("pull", "tiny").code == 0
    assert not imported(house.folder, *arguments) & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls",),
        ("ls", "--catalog", "--json"),
        ("show", "tiny"),
        ("plan", "qwen3-8b", "--gpus", "RTX 4090"),
    ],
)
def test_what_only_looks_does_without_pydantic(house: House, arguments: tuple[str, ...]) -> None:
    assert house.run("pull", "tiny").code == 0
    assert not {name for name in imported(house.folder, *arguments) if "pydantic" in name}


@pytest.mark.parametrize("arguments", [(), ("--help",), ("engine", "--help")])
def test_help_imports_no_verb(home: Path, arguments: tuple[str, ...]) -> None:
    found = imported(Path.cwd(), *arguments) - {"rich", "pydantic"}  # as typer wants it
    assert not found & (FOR_SETTINGS | HEAVY)
    assert not {name for name in found if name.startswith("serve.cli.") and name not in START}


def test_the_version_needs_no_more_than_its_flag(home: Path) -> None:
    assert not imported(Path.cwd(), "--version") & (FOR_SETTINGS | HEAVY)


def verbs(command: Any) -> Iterator[Verb]:
    """All of the table."""
    if isinstance(command, Verb):
        yield command
    for below in getattr(command, "commands", {}).values():
        yield from verbs(below)


@pytest.mark.parametrize("verb", list(verbs(app())), ids=lambda verb: verb.help)
def test_the_line_in_the_table_is_the_verb_s_own(verb: Verb) -> None:
    whole = inspect.cleandoc(verb.read().help or "")
    assert verb.help == whole.split("\n\n")[0].replace("\n", " ")
    assert verb.name == verb.read().name


def test_all_verbs_and_their_lines_are_in_the_help(home: Path) -> None:
    argv = [sys.executable, "-m", "serve", "--help"]
    wide = os.environ | {"COLUMNS": "200"}
    shown = subprocess.run(argv, capture_output=True, text=True, check=True, env=wide).stdout
    for name, command in app().commands.items():
        assert re.search(rf"^│ {name} +{re.escape(command.help or '-')} +│$", shown, re.M), name


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("inhouse ", {"serve", "ls", "engine"}),
        ("inhouse engine ", {"install", "ls", "rm"}),
        ("inhouse sh", {"show"}),
        ("inhouse ls --js", {"--json"}),
        ("inhouse engine install --dev", {"--device"}),
    ],
)
def test_a_shell_completes_verbs_and_their_flags(home: Path, words: str, offered: set[str]) -> None:
    count = str(len(words.split(" ")) - 1)
    asked = {"_INHOUSE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
    argv = [sys.executable, "-c", "from serve.cli import main; main()"]
    ended = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=os.environ | asked, timeout=60
    )
    assert offered <= set(ended.stdout.split()), ended.stderr


def test_what_is_late_is_called_as_if_it_were_here() -> None:
    assert read("serve.units:show_bytes")(1024) == late("serve.units:show_bytes")(1024)
    assert gc.isenabled()
    with pytest.raises(AttributeError):
        read("serve.units:nothing_like_it")
    assert gc.isenabled()


CLIENT = """
import json, os
from serve.cli import rooms
from serve.cli.flags import merged
rooms.store(merged({}, None))
from huggingface_hub import constants as c
print(json.dumps([c.HF_HOME, c.HF_XET_CACHE, c.HF_HUB_DISABLE_TELEMETRY]))
"""


def test_the_hub_s_client_finds_its_folder_and_reports_nothing(home: Path, tmp_path: Path) -> None:
    (tmp_path / "inhouse.yaml").write_text("hub: {home: chosen}")
    said = subprocess.check_output([sys.executable, "-c", CLIENT], text=True, cwd=tmp_path)
    chosen = str(tmp_path / "chosen")
    assert json.loads(said) == [chosen, f"{chosen}/xet", True]


def test_a_program_measures_it(home: Path) -> None:
    program = Path(__file__).parents[2] / "scripts" / "bench-start"
    argv = [sys.executable, str(program), "--models", "3", "--rounds", "1"]
    table = subprocess.check_output(argv, text=True, timeout=100)
    assert len(re.findall(r"^\| `.+` \| \d+ \(\d+–\d+\) \| \d+ \(\d+–\d+\) \|$", table, re.M)) == 8
