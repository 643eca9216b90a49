"""`inhouse gc`: shown first, done on demand, and nothing that is locked or served."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import House, Inhouse
from tests.cli.test_lock import change, hub
from tests.fakes.fake_hub import FakeHub

__all__ = ["hub"]  # the fixture


def leftovers(inhouse: Inhouse, *arguments: str) -> list[tuple[str, str]]:
    found = json.loads(inhouse("gc", "--json", *arguments).out)["leftovers"]
    return [(one["what"], one["name"]) for one in found]


@pytest.fixture
def old(inhouse: Inhouse, house: House, hub: FakeHub) -> Path:
    """The snapshot of a revision that a newer one has superseded; a lock named it meanwhile."""
    inhouse("lock", "remote")
    [held] = json.loads(inhouse("ls", "--json").out)
    change(hub, **{"tokenizer.json": b'{"version": "2.0"}'})
    assert inhouse("lock", "--upgrade").code == 0
    return Path(held["path"])


def test_nothing_to_clear_away(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "tiny")
    ran = inhouse("gc")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.endswith("nothing to clear away\n") and "no lock file here" in ran.err


def test_it_is_shown_first_and_done_on_demand(inhouse: Inhouse, old: Path) -> None:
    shown = inhouse("gc")
    assert shown.code == 0 and "a newer one is here" in shown.out and old.name[:12] in shown.out
    assert "would free" in shown.err and "inhouse gc --apply" in shown.err and old.is_dir()
    record = json.loads(inhouse("gc", "--json").out)
    assert (record["is_applied"], record["leftovers"][0]["revision"]) == (False, old.name)
    assert record["freed_bytes"] == record["leftovers"][0]["freed_bytes"] > 0
    done = inhouse("gc", "--apply")
    assert done.code == 0 and done.err.startswith("freed ") and not old.exists()
    assert leftovers(inhouse) == []
    assert json.loads(inhouse("ls", "--json").out)[0]["state"] == "whole"


def test_what_is_locked_stays(inhouse: Inhouse, house: House, old: Path) -> None:
    inhouse("pull", "tiny")
    assert leftovers(inhouse, "--unused", "0s") == [("superseded", "remote")]
    (house.folder / "models.lock").unlink()
    assert leftovers(inhouse, "--unused", "0s") == [("superseded", "remote"), ("unused", "remote")]
    assert leftovers(inhouse, "--unused", "30d") == [("superseded", "remote")]


def test_a_lock_that_cannot_be_read_stops_it(inhouse: Inhouse, house: House, old: Path) -> None:
    (house.folder / "models.lock").write_text("{")
    assert inhouse("gc", "--apply").code == 4 and old.is_dir()


def test_what_is_served_stays(inhouse: Inhouse, house: House, old: Path) -> None:
    with house.serving("remote"):
        assert leftovers(inhouse, "--apply", "--unused", "0s") == []
    assert old.is_dir()


def test_a_time_that_is_none(inhouse: Inhouse, house: House) -> None:
    ran = inhouse("gc", "--unused", "soon")
    assert ran.code == 2 and "--unused" in ran.err
