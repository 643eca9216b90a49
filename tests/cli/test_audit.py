"""`inhouse audit`: what was done is listed, checked and exported."""

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Inhouse

# RFC 5424: priority and version, time, host, program, process, message id, one element, the text.
SYSLOG = re.compile(
    r'<1(08|09)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S+ inhouse - [\w.]+ '
    r'\[audit@32473( \w+="([^"\\\]]|\\["\\\]])*")+\] \{.*\}'
)  # fmt: skip


@pytest.fixture
def used(inhouse: Inhouse, home: Path) -> Path:
    """A home in which something was done; its database."""
    for name in ("a", "b", 'c "]\\'):
        assert inhouse("key", "create", "--tenant", "t", "--name", name).code == 0
    assert inhouse("key", "revoke", "a").code == 0
    return home / "ledger.sqlite3"


def test_nothing_was_done_yet(inhouse: Inhouse) -> None:
    assert inhouse("audit", "ls").code == inhouse("audit", "verify").code == 0
    assert json.loads(inhouse("audit", "ls", "--json").out) == []
    assert inhouse("audit", "export").out == ""


def test_what_was_done_is_listed(inhouse: Inhouse, used: Path) -> None:
    listed = inhouse("audit", "ls")
    assert listed.out.count("key.create") == 3 and "cli:" in listed.out
    records = json.loads(inhouse("audit", "ls", "--action", "key.revoke", "--json").out)
    assert [record["seq"] for record in records] == [4]
    assert json.loads(inhouse("audit", "ls", "--since", "2999-01-01", "--json").out) == []
    assert len(json.loads(inhouse("audit", "ls", "--since", "1h", "-n", "2", "--json").out)) == 2
    assert json.loads(inhouse("audit", "ls", "--actor", "system", "--json").out) == []
    assert inhouse("audit", "ls", "--since", "x").code == 2
    assert inhouse("audit", "ls", "--last", "0").code == 2


def change(database: Path, statement: str) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(statement)
    connection.close()


def test_a_whole_log_is_told_from_a_changed_one(inhouse: Inhouse, used: Path) -> None:
    whole = inhouse("audit", "verify")
    assert whole.code == 0 and "4 records" in whole.err
    head = whole.out.strip()
    assert head.startswith("4:")
    assert inhouse("audit", "verify", "--noted", head).code == 0
    assert json.loads(inhouse("audit", "verify", "--json").out) == {
        "records": 4, "first": 1, "head": head,
    }  # fmt: skip
    change(used, "UPDATE audit SET actor = 'cli:1' WHERE seq = 3")
    broken = inhouse("audit", "verify")
    assert broken.code == 4 and "record 3" in broken.err
    change(used, "DELETE FROM audit WHERE seq >= 3")
    assert "record 3" in inhouse("audit", "verify").err


@pytest.mark.parametrize("noted", ["5:00", "3:00", "x", "3", ":3", "-1:00"])
def test_what_was_noted_is_compared(inhouse: Inhouse, used: Path, noted: str) -> None:
    assert inhouse("audit", "verify", "--noted", noted).code in (2, 4)


def test_export_is_for_programs(inhouse: Inhouse, used: Path) -> None:
    lines = inhouse("audit", "export").out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3, 4]
    later = inhouse("audit", "export", "--after", "2", "--action", "key.*").out.splitlines()
    assert [json.loads(line)["seq"] for line in later] == [3, 4]
    messages = inhouse("audit", "export", "--format", "syslog").out.splitlines()
    assert len(messages) == 4
    for message in messages:
        assert SYSLOG.fullmatch(message), message
    assert inhouse("audit", "export", "--format", "xml").code == 2


def test_export_follows(inhouse: Inhouse, used: Path) -> None:
    argv = [sys.executable, "-m", "serve", "audit", "export", "--follow", "--after", "4"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert inhouse("key", "revoke", "b").code == 0
        assert json.loads(following.stdout.readline())["seq"] == 5
        following.kill()
