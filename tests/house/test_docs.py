"""What can be typed, set or called is documented, and the pages say nothing else."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from serve.cli.app import app
from serve.cli.flags import flag_name
from serve.cli.verb import Verb
from serve.settings import Setting, load, table
from serve.units import show_bytes, show_seconds
from tests.house.rooms import FLOOR_0, ROOMS
from tests.house.source import ROOT, SERVE, house

ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
VERBS = (ROOT / "docs" / "cli.md").read_text()
ROUTES = (ROOT / "docs" / "api.md").read_text()


def row(setting: Setting) -> str:
    """A setting's line in docs/settings.md."""
    flag = "MODEL…" if setting.key == "server.models" else flag_name(setting)
    return (
        f"| `{setting.key}` | `{setting.variable}` | `{flag}` | {default(setting)} "
        f"| {setting.help} |"
    )


def default(setting: Setting) -> str:
    group, name = setting.key.split(".")
    value = getattr(getattr(load({}, {"HOME": "/home/you"}), group), name)
    match value:
        case None | ():
            return "–"
        case float() if name != "sample":  # a share
            return f"`{show_seconds(value)}`"
        case int() if value >= 2**16:
            return f"`{show_bytes(value)}`"
        case _:
            return f"`{value}`".replace("/home/you", "~")


@pytest.mark.parametrize("setting", list(table()), ids=lambda setting: setting.key)
def test_every_setting_is_documented(setting: Setting) -> None:
    assert row(setting) in SETTINGS.splitlines(), (
        f"docs/settings.md lacks the line:\n{row(setting)}"
    )


def test_no_setting_is_documented_that_is_not_there() -> None:
    documented = re.findall(r"^\| `(\w+\.\w+)` ", SETTINGS, re.MULTILINE)
    assert documented == [setting.key for setting in table()]


def verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every verb that does something, as it is typed: "inhouse engine install"."""
    for word, below in getattr(command, "commands", {}).items():
        yield from verbs(below, f"{name} {word}")
    if isinstance(command, Verb):
        yield name, command.read()


ALL_VERBS = dict(verbs(app(), "inhouse"))
SETTING_FLAGS = {flag_name(setting) for setting in table()} | {"--config", "--json", "--help", "-h"}


SECTIONS = {
    re.match(r"[a-z ]*[a-z]", section)[0]: section  # type: ignore[index]
    for section in VERBS.split("\n## `")[1:]
}


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_every_verb_is_documented_with_its_own_flags(verb: str) -> None:
    assert verb in SECTIONS, f"docs/cli.md: no section: ## `{verb}`"
    options = [option for option in ALL_VERBS[verb].params if not getattr(option, "hidden", False)]
    flags = {flag for option in options for flag in option.opts if flag.startswith("-")}
    missing = [f for f in sorted(flags - SETTING_FLAGS) if f"`{f}" not in SECTIONS[verb]]
    assert not missing, f"docs/cli.md: the section `{verb}` lacks {missing}"


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_every_verb_is_in_the_readme(verb: str) -> None:
    word = verb.split()[1]
    assert re.search(rf"^\| `inhouse {word}\b", README, re.M), f"README.md: no row for `{verb}`"


def test_no_verb_is_documented_that_is_not_there() -> None:
    assert sorted(SECTIONS) == sorted(ALL_VERBS)


def test_every_route_is_documented() -> None:
    routes = {
        word
        for module in house()
        if module.room in ("gateway", "control")
        for word, _ in module.words()
        if re.fullmatch(r"(/[a-z0-9_{}:]+)+", word) and not word.startswith("/proc/")
    }
    assert routes, "no routes found: has the way in which they are written changed?"
    missing = [route for route in sorted(routes) if f"`{route}`" not in ROUTES]
    assert not missing, f"docs/api.md lacks {missing}"


def test_the_drawn_table_of_rooms_is_the_one_that_is_enforced() -> None:
    rows = re.findall(r"^\| (\d) \| `(\w+)(?:\.py|/)` \|.*\| (.*?) \|$", ARCHITECTURE, re.MULTILINE)
    drawn = {room: rooms_in(allowed) for _, room, allowed in rows}
    assert drawn == {room: set(allowed) for room, allowed in ROOMS.items()}
    floors = [int(floor) for floor, _, _ in rows]
    assert floors == sorted(floors)


def rooms_in(cell: str) -> set[str]:
    """What "0, catalog, hardware", "–" or "every door" stands for."""
    if cell == "every door":
        return set(ROOMS) - {"inside", "cli"}
    names = {name.strip() for name in cell.split(",")} - {"–"}
    return (names - {"0"}) | (FLOOR_0 if "0" in names else frozenset())


def test_every_room_is_drawn_where_it_lies() -> None:
    for room in ROOMS:
        shown = f"`{room}/`" if (SERVE / room).is_dir() else f"`{room}.py`"
        assert shown in ARCHITECTURE, f"ARCHITECTURE.md does not draw {shown}"


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")], ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Any) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    lost = [target for target in targets if not (page.parent / target).exists()]
    assert not lost, f"{page.name}: dead links: {lost}"
