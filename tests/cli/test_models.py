import json

import pytest

from tests.cli.conftest import House, Inhouse


def test_weights_are_pulled_listed_shown_and_removed(inhouse: Inhouse, house: House) -> None:
    assert inhouse("ls").err.startswith("no weights here yet")
    assert json.loads(inhouse("ls", "--json").out) == []
    (pulled,) = json.loads(inhouse("pull", "tiny", "--json").out)
    assert pulled["path"] == str(house.folder / "weights")
    assert "tiny" in inhouse("ls").out
    (held,) = json.loads(inhouse("ls", "--json").out)
    assert held["is_complete"] is True and held["digest"] == pulled["digest"]
    shown = json.loads(inhouse("show", "tiny", "--json").out)
    assert shown["weights"]["path"] == pulled["path"] and shown["source"]["kind"] == "dir"
    assert pulled["path"] in inhouse("show", "tiny").out
    assert "tiny" in inhouse("rm", "tiny").out
    assert (house.folder / "weights" / "config.json").exists(), "a folder of yours stays"
    assert inhouse("rm", "tiny").code == 3


def test_the_catalog_is_listed(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "tiny")
    table = inhouse("ls", "--catalog").out
    assert "smollm2-135m-instruct" in table and "tiny" in table
    rows = {row["name"]: row for row in json.loads(inhouse("ls", "--catalog", "--json").out)}
    assert rows["tiny"]["is_here"] and not rows["smollm2-135m-instruct"]["is_here"]


def test_what_is_not_here_is_shown_with_the_cure(inhouse: Inhouse) -> None:
    shown = inhouse("show", "starter")
    assert "inhouse pull smollm2-135m-instruct" in shown.out
    assert json.loads(inhouse("show", "starter", "--json").out)["weights"] is None


@pytest.mark.parametrize("verb", ["pull", "show", "rm"])
def test_a_name_that_is_unknown(inhouse: Inhouse, verb: str) -> None:
    ran = inhouse(verb, "nothing-like-it")
    assert ran.code == 3 and "error: no such model: nothing-like-it" in ran.err


def test_runtimes_are_listed_and_doctor_looks(inhouse: Inhouse, house: House) -> None:
    assert inhouse("engine", "ls").err.startswith("no runtime here yet")
    assert inhouse("engine", "rm", "none").code == 6
    looked = inhouse("doctor")
    assert looked.code == 0 and "processor" in looked.out and "runtime" in looked.out
    record = json.loads(inhouse("doctor", "--json").out)
    assert {"facts", "checks", "machine"} <= set(record)


def test_the_version_and_the_help(inhouse: Inhouse) -> None:
    assert inhouse("--version").out.startswith("inhouse 0.")
    assert "serve" in inhouse().out == inhouse("--help").out
