"""Imports go down, through doors, absolute, at the top of the file."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.house.rooms import BANNED_NAMES, FLOOR_0, LAZY, MOST_EXPORTS, ROOMS
from tests.house.source import SERVE, Import, Module, house, no

DOORS = {module.room: module for module in house() if module.is_door}
OURS = [(m, i) for m in house() for i in m.imports if i.library == "serve" or i.is_relative]


def test_every_room_is_in_the_table_and_there() -> None:
    found = {module.room for module in house()} - {"", "__main__"}
    assert found == set(ROOMS), (
        f"rooms only on disk: {found - set(ROOMS)}, only in the table: {set(ROOMS) - found}; "
        "a new room goes into tests/house/rooms.py and ARCHITECTURE.md"
    )


def test_the_table_itself_goes_down() -> None:
    order = list(ROOMS)
    for room, allowed in ROOMS.items():
        above = [other for other in allowed if order.index(other) >= order.index(room)]
        assert not above, f"{room} may not import {above}: they are on its floor or above"


def test_imports_go_down() -> None:
    no(
        module.at(item.line, f"{module.room} may not import {room}; move it down, or pass it in")
        for module, item in OURS
        if module.room not in ("", "__main__", room_of(item))
        and (room := room_of(item)) not in ("", *ROOMS[module.room])
    )


def test_the_top_of_the_house_imports_only_the_cli() -> None:
    no(
        module.at(item.line, f"only {module.shown} → cli; compose in cli/")
        for module, item in OURS
        if module.room in ("", "__main__") and room_of(item) != "cli"
    )


def test_imports_are_absolute() -> None:
    no(
        module.at(item.line, f"relative import; write `from serve.{module.room}.… import …`")
        for module, item in OURS
        if item.is_relative
    )


def test_imports_are_at_the_top_of_the_file() -> None:
    # The programs inside a runtime choose by what vLLM offers, so they may look first.
    no(
        module.at(item.line, f"import of {item.module} below the top; move it up")
        for module in house()
        if module.room != "inside"
        for item in module.imports
        if not item.is_at_top and LAZY.get(module.shown.removeprefix("serve/")) != item.module
    )


def test_what_tables_name_is_there() -> None:
    names = {module.name: module.names() for module in house()}
    no(
        module.at(item.line, f"{item.module}:{item.name} is not there")
        for module in house()
        for item in module.places()
        if item.name not in names.get(item.module, ())
    )


def test_other_rooms_are_entered_through_their_door() -> None:
    no(breach for module, item in OURS if (breach := past_the_door(module, item)))


def past_the_door(module: Module, item: Import) -> str | None:
    room = room_of(item)
    if room in ("", module.room) or item.is_relative:
        return None
    if item.name is None:
        return module.at(item.line, f"write `from {item.module} import name`, not the module")
    if room not in DOORS:
        return None  # a floor that is one file is its own door
    if item.module != f"serve.{room}":
        return module.at(item.line, f"{item.module} is behind a door; `from serve.{room} import …`")
    if item.name not in DOORS[room].exports():
        return module.at(
            item.line, f"{item.name} is not in {room}'s __all__; export it or do without"
        )
    return None


def test_no_private_name_is_imported() -> None:
    no(
        module.at(item.line, f"{item.name} is private to {item.module}; make it public or move it")
        for module, item in OURS
        if item.name and item.name.startswith("_") and not item.name.startswith("__")
    )


def test_inside_a_room_modules_are_imported_not_the_own_door() -> None:
    no(
        module.at(item.line, f"import the module itself, not the own door {item.module}")
        for module, item in OURS
        if item.module == f"serve.{module.room}" in targets(item) and module.room in DOORS
    )


def test_inside_is_imported_by_nobody_and_imports_nothing_of_ours() -> None:
    no(
        module.at(item.line, "serve/inside/ runs in another interpreter; run it, do not import it")
        for module, item in OURS
        if module.room == "inside" or room_of(item) == "inside"
    )


def test_no_module_imports_itself_in_a_circle() -> None:
    names = {module.name for module in house()}
    graph = {
        module.name: {
            name
            for item in module.imports
            if not item.is_late  # when that comes, all is there
            for name in targets(item)
            if name in names
        }
        - {module.name}
        for module in house()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' → '.join(error.args[1])}; move what both need to a lower file")


def targets(item: Import) -> Iterator[str]:
    """The module that an import reads: `from serve.a import b` may be module b or a name of a."""
    module = f"{item.module}.{item.name}"
    is_module = (SERVE.parent / module.replace(".", "/")).with_suffix(".py").exists()
    yield module if is_module else item.module


@pytest.mark.parametrize("room", sorted(DOORS))
def test_a_door_is_short_and_says_what_the_room_is_for(room: str) -> None:
    door = DOORS[room]
    exports = door.exports()
    assert len(ast.get_docstring(door.tree) or "") > 20, f"{door.shown}: say what the room is for"
    assert len(exports) <= MOST_EXPORTS, f"{door.shown}: {len(exports)} exports; {MOST_EXPORTS} do"
    assert exports == sorted(exports, key=lambda name: (name[0].islower(), name)), (
        f"{door.shown}: sort __all__: classes, then functions"
    )
    assert not set(exports) - door.names(), f"{door.shown}: __all__ names what is not there"
    modules = {path.stem for path in door.path.parent.glob("*.py")}
    assert not modules & set(exports), (
        f"{door.shown}: {modules & set(exports)} is a module and an export; rename the module"
    )


def test_modules_are_named_for_an_idea() -> None:
    no(
        module.at(1, f"a module called {module.path.stem}; name it for the idea in it")
        for module in house()
        if module.path.stem in BANNED_NAMES
    )


def test_the_ground_floor_is_the_table_s() -> None:
    assert all(ROOMS[room] <= {"serving_errors"} for room in FLOOR_0)


def room_of(item: Import) -> str:
    """ "engine" for `serve.engine.process`; "" for `from serve import __version__`."""
    parts = item.module.split(".")
    return parts[1] if len(parts) > 1 else ""
