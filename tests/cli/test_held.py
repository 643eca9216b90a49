"""`inhouse ls` and `rm`: what is here, since when, under which names; and nothing taken away."""

import json
import os
import re
import shutil
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.cli.conftest import House, Inhouse


def rows(inhouse: Inhouse) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in json.loads(inhouse("ls", "--json").out)}


def test_a_listing_says_what_is_here_and_since_when(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "tiny", "starter")
    found = rows(inhouse)
    tiny, starter = found["tiny"], found["smollm2-135m-instruct"]
    assert tiny["state"] == "whole" and tiny["used_at"] is None
    at = datetime.fromisoformat(str(tiny["verified_at"]))
    assert abs(at.timestamp() - time.time()) < 60 and str(tiny["verified_at"]).endswith("Z")
    assert tiny["names"] == ["smollm2-135m-instruct"], "another entry has the same files"
    assert starter["names"] == ["starter", "tiny"]
    table = inhouse("ls").out
    assert re.search(r"^MODEL +SIZE +VERIFIED +LAST USED +REVISION +ALSO CALLED +FROM", table)
    assert re.search(r"^tiny .*KiB +just now +never +[0-9a-f]{12} +smollm2", table, re.M)
    assert f"dir:{house.folder / 'weights'}" in table


def test_what_was_served_was_used(inhouse: Inhouse, house: House) -> None:
    with house.serving("tiny"):
        pass
    assert rows(inhouse)["tiny"]["used_at"] is not None
    used = next((house.folder / "home" / "inhouse" / "manifests").glob("*.used"))
    three_days_ago = time.time() - 3 * 86400 - 60
    os.utime(used, (three_days_ago, three_days_ago))
    assert "3 days ago" in inhouse("ls").out


def test_a_narrow_terminal_has_it_all_too(
    inhouse: Inhouse, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    inhouse("pull", "starter")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    lines = inhouse("ls").out.splitlines()
    assert max(map(len, lines[:2])) <= 80 and "FROM" in lines[0]
    assert "also starter" in re.sub(r"\s+", " ", " ".join(lines[2:]))


def test_what_is_not_whole_is_said_first(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "tiny")
    shard = house.folder / "weights" / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"y")
    assert inhouse("verify", "tiny").code == 4
    assert rows(inhouse)["tiny"]["state"] == "quarantined"
    assert "IN QUARANTINE: model.safetensors is damaged" in inhouse("ls").out
    inhouse("rm", "tiny")
    inhouse("pull", "tiny")
    shard.unlink()
    assert rows(inhouse)["tiny"]["state"] == "incomplete"
    assert "FILES ARE MISSING" in inhouse("ls").out


def test_what_is_served_is_not_removed_unless_forced(inhouse: Inhouse, house: House) -> None:
    with house.serving("tiny"):
        ran = inhouse("rm", "tiny")
        assert ran.code == 8 and "tiny is served now (inhouse stop tiny" in ran.err
        assert "tiny" in rows(inhouse)
        assert inhouse("rm", "tiny", "--force").code == 0
        assert rows(inhouse) == {}


def test_a_model_that_left_the_catalog_can_be_removed(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "slow")
    catalog = house.folder / "catalog.yaml"
    record = json.loads(catalog.read_text())
    del record["models"]["slow"]
    catalog.write_text(json.dumps(record))
    assert rows(inhouse)["slow"]["names"] == []
    assert inhouse("rm", "slow", "slow").code == 0


def test_a_listing_of_many_reads_each_seal_once(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "tiny")
    manifests = house.folder / "home" / "inhouse" / "manifests"
    [seal] = manifests.glob("*.json")
    for number in range(50):
        record = json.loads(seal.read_text()) | {"name": f"tiny-{number}"}
        (manifests / f"tiny-{number}--{record['revision'][:12]}.json").write_text(
            json.dumps(record)
        )
    assert len(rows(inhouse)) == 51 and inhouse("ls").out.count("\n") == 53
    shutil.rmtree(Path(manifests))
    assert rows(inhouse) == {}
