"""`inhouse verify`, as it is typed, on weights that a test damages."""

import json

from tests.cli.conftest import House, Inhouse
from tests.store.damage import flip_bit, flip_bit_secretly


def damage(house: House, name: str = "model.safetensors") -> None:
    flip_bit_secretly(house.folder / "weights" / name)


def test_good_weights(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "tiny")
    ran = inhouse("verify", "tiny")
    assert ran.code == 0 and "as it was verified" in ran.out and "checking tiny" in ran.err
    (record,) = json.loads(inhouse("verify", "--all", "--json").out)
    (held,) = json.loads(inhouse("ls", "--json").out)
    assert record["is_verified"] is True and record["problem"] is None
    assert record["verified_at"] == held["verified_at"] >= held["sealed_at"]


def test_damage_is_named_with_the_cure(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "tiny")
    damage(house)
    ran = inhouse("verify", "tiny")
    assert ran.code == 4 and "DAMAGED: model.safetensors" in ran.out
    assert "error: tiny is in quarantine: model.safetensors has changed" in ran.err
    assert "hint: inhouse pull tiny" in ran.err
    shown = inhouse("show", "tiny")
    assert shown.code == 0 and "in quarantine, model.safetensors is damaged" in shown.out
    assert json.loads(inhouse("show", "tiny", "--json").out)["weights"]["damage"]
    assert inhouse("pull", "tiny").code == 0
    assert inhouse("verify", "tiny").code == 0


def test_all_are_read_even_if_one_is_damaged(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "tiny", "slow", "broken")
    flip_bit(house.folder / "weights" / "config.json")
    ran = inhouse("verify", "--all", "--json")
    records = json.loads(ran.out)
    assert ran.code == 4 and [record["name"] for record in records] == ["broken", "slow", "tiny"]
    for record in records:
        assert record["is_verified"] is False
        assert record["problem"]["error"] == "WeightsDamaged"
        assert record["problem"]["facts"]["file"] == "config.json"


def test_damaged_weights_are_not_served(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "tiny")
    damage(house, "tokenizer.json")
    ran = house.run("serve", "tiny")
    assert ran.code == 4 and "tiny is in quarantine: tokenizer.json" in ran.err
    assert "hint: inhouse pull tiny" in ran.err


def test_a_folder_that_another_program_changed_is_not_loaded(house: House) -> None:
    """Over the control socket: `load` is told what the supervisor was."""
    with house.serving("tiny"):
        damage(house)
        ran = house.run("load", "slow")
        assert ran.code == 0, "it was pulled just now, as it is now"
        damage(house)
        house.run("stop", "slow")
        ran = house.run("load", "slow")
        assert ran.code == 4 and "slow is in quarantine: model.safetensors" in ran.err


def test_what_to_type(inhouse: Inhouse, house: House) -> None:
    assert inhouse("verify").code == 2
    assert inhouse("verify", "tiny", "--all").code == 2
    assert "no weights here yet" in inhouse("verify", "--all").err
    ran = inhouse("verify", "tiny")
    assert ran.code == 3 and "inhouse pull tiny" in ran.err
    ran = inhouse("verify", "nothing-like-it")
    assert ran.code == 3 and "no such model" in ran.err


def test_what_has_left_the_catalog_can_be_verified(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "tiny")
    (house.folder / "catalog.yaml").write_text("{}")
    assert inhouse("verify", "tiny").code == 0


def test_aliases_and_repeated_names(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "starter")
    records = json.loads(inhouse("verify", "starter", "smollm2-135m-instruct", "--json").out)
    assert [record["name"] for record in records] == ["smollm2-135m-instruct"]


def test_a_policy_is_named_when_it_refuses(house: House) -> None:
    settings = json.loads((house.folder / "inhouse.yaml").read_text())
    strict = settings | {"policy": {"sources": ["hf"]}}
    (house.folder / "inhouse.yaml").write_text(json.dumps(strict))
    ran = house.run("serve", "tiny")
    assert ran.code == 4 and "policy.sources does not allow tiny: dir (allowed: hf)" in ran.err
