"""`inhouse usage`: sums for people and for programs."""

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import insert

from serve.cli.usage import fitting
from serve.ledger import schema
from serve.ledger.adding import add_usage
from serve.ledger.database import Database
from serve.ledger.rows import usage_row
from tests.cli.conftest import Inhouse
from tests.journal.records import end
from tests.ledger.test_usage import DAY, NOON

SINCE = ("--since", "2026-11-01", "--until", "2026-12-01")


@pytest.fixture
def used(home: Path) -> Path:
    """Three requests of two keys, and one of nobody, on two days."""
    database = Database.open(None, home)
    first, second, third, fourth = (end(number, at=NOON) for number in range(4))
    ends = [
        first,
        msgspec.structs.replace(second, key="k2", cost_nanos=2_000_000_000, outcome="error"),
        msgspec.structs.replace(third, at=NOON - DAY, model="=SUM(A1)"),
        msgspec.structs.replace(fourth, key="", tenant=""),
    ]
    with database.begin() as connection:
        add_usage(connection, [usage_row(each, 1000.0) for each in ends])
        connection.execute(
            insert(schema.keys).values(
                id="k1", digest="d", tenant="acme", name="ci", terms={}, created_at=0.0
            )
        )
    database.close()
    return home


def test_without_requests(inhouse: Inhouse, home: Path) -> None:
    ran = inhouse("usage")
    assert (ran.code, ran.out) == (0, "")
    assert "no requests" in ran.err
    assert json.loads(inhouse("usage", "--json").out) == []


def test_a_table_with_sums_and_shares(inhouse: Inhouse, used: Path) -> None:
    ran = inhouse("usage", "--by", "key", *SINCE)
    assert ran.code == 0
    head, _, *lines = ran.out.splitlines()
    assert head.split() == [
        "KEY", "REQUESTS", "FAILED", "INPUT", "CACHED", "OUTPUT", "TTFT", "ENERGY", "COST", "SHARE"
    ]  # fmt: skip
    cells = {line[:10].strip(): line[10:].split() for line in lines}
    assert list(cells) == ["(no key)", "ci (k1)", "k2", "all"]
    assert cells["k2"] == [
        "1",
        "1",
        "11",
        "4",
        "20",
        "500",
        "ms",
        "1,000",
        "J",
        "2.0000",
        "100.0",
        "%",
    ]
    assert cells["all"][0] == "4" and cells["all"][-2] == "100.0"


def test_what_nobody_has_is_not_shown(inhouse: Inhouse, home: Path) -> None:
    database = Database.open(None, home)
    free = msgspec.structs.replace(end(1, at=NOON), cost_nanos=0, cached_tokens=0, ttft_s=None)
    with database.begin() as connection:
        add_usage(connection, [usage_row(free, None)])
    database.close()
    ran = inhouse("usage", "--by", "tenant,model", *SINCE)
    head, _, line = ran.out.splitlines()
    assert head.split() == ["TENANT", "MODEL", "REQUESTS", "INPUT", "OUTPUT", "SHARE"]
    assert line.split() == ["acme", "tiny", "1", "11", "20", "100.0", "%"]


def test_a_narrow_terminal_shows_what_matters_most() -> None:
    columns = [["MODEL", "deepseek-v3"], ["REQUESTS", "1"], ["  TTFT", "500 ms"], ["ENERGY", "1 J"]]
    assert [column[0] for column in fitting(columns, 100)] == [c[0] for c in columns]
    assert [column[0].strip() for column in fitting(columns, 31)] == ["MODEL", "REQUESTS", "TTFT"]
    assert [column[0] for column in fitting(columns, 30)] == ["MODEL", "REQUESTS"]
    assert [column[0] for column in fitting(columns, 5)] == ["MODEL", "REQUESTS"]


def test_json_for_programs(inhouse: Inhouse, used: Path) -> None:
    records = json.loads(inhouse("usage", "--by", "key,day", "--json", *SINCE).out)
    assert [(r["key"], r["key_name"], r["day"]) for r in records] == [
        ("", "", "2026-11-22"),
        ("k1", "ci", "2026-11-21"),
        ("k1", "ci", "2026-11-22"),
        ("k2", "", "2026-11-22"),
    ]
    assert records[3]["cost"] == 2.0 and records[3]["cost_nanos"] == 2_000_000_000
    assert records[0]["energy_j"] == 1000.0


def test_csv_for_spreadsheets_has_no_formulas(inhouse: Inhouse, used: Path) -> None:
    ran = inhouse("usage", "--by", "model,month", "--csv", *SINCE)
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [(row["model"], row["month"], row["requests"]) for row in rows] == [
        ("'=SUM(A1)", "2026-11", "1"),
        ("tiny", "2026-11", "3"),
    ]


def test_all_in_one(inhouse: Inhouse, used: Path) -> None:
    (record,) = json.loads(inhouse("usage", "--by", "", "--json", *SINCE).out)
    assert record["requests"] == 4


def test_a_time_is_kept_to(inhouse: Inhouse, used: Path) -> None:
    ran = inhouse("usage", "--json", "--since", "2026-11-22", "--until", "2026-11-23")
    assert sum(record["requests"] for record in json.loads(ran.out)) == 3
    assert json.loads(inhouse("usage", "--json", "--until", "2026-11-20").out) == []


@pytest.mark.parametrize(
    "flags, said",
    [
        (("--by", "modle"), "model"),
        (("--since", "soon"), "--since"),
        (("--until", "never"), "--until"),
    ],
)
def test_what_is_not_understood(inhouse: Inhouse, flags: tuple[str, ...], said: str) -> None:
    ran = inhouse("usage", *flags)
    assert ran.code == 2 and said in ran.err
