"""What gateways wrote comes into the ledger, each request once, whatever fails in between."""

import multiprocessing
import random
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, select

from serve.errors import LedgerUnavailable
from serve.journal import End, Journal, Journals, Refusal
from serve.ledger import schema
from serve.ledger.database import Database
from serve.ledger.importing import Importer
from serve.quota import Price
from tests.journal.records import end, refusal, start
from tests.ledger.postgres import Postgres

SMALL = 64 * 2**10  # bytes of a segment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def rows(database: Database, table: Any = schema.usage) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(table).order_by(list(table.primary_key)[0])))


def ids(database: Database) -> set[str]:
    found = [row.id for row in rows(database)]
    assert len(found) == len(set(found))
    return set(found)


def serve(journal: Journal, requests: range) -> set[str]:
    for number in requests:
        journal.start(start(number))
        journal.end(end(number))
    return {f"r{number}" for number in requests}


def write_and_die(folder: Path, begun: int, ended: int) -> None:
    """A gateway that passed on ten events more of each answer, and was killed."""
    journal = Journal(folder, 1, "group")
    for number in range(begun):
        slot = journal.take_slot()
        journal.start(start(number, slot=slot))
        journal.count(slot, 10 * (number + 1))
        if number < ended:
            journal.end(end(number))
    multiprocessing.current_process().kill()


def killed(folder: Path, begun: int, ended: int) -> None:
    child = multiprocessing.get_context("fork").Process(
        target=write_and_die, args=(folder, begun, ended)
    )
    child.start()
    child.join()


def test_a_request_is_as_it_was_written(database: Database, folder: Path) -> None:
    importer = Importer(database, folder, energy=lambda replica, at, duration_s: 3.5)
    journal = Journal(folder, 0, "group")
    serve(journal, range(1))
    assert importer.step() == 2
    (row,) = rows(database)
    written = msgspec.structs.asdict(end(0))
    del written["client"]
    assert row._asdict() == written | {"energy_j": 3.5}
    journal.close()


def test_each_step_takes_what_is_new(database: Database, folder: Path) -> None:
    importer = Importer(database, folder)
    assert importer.step() == 0
    journal = Journal(folder, 0, "group", SMALL)
    for first in range(0, 3000, 1000):
        serve(journal, range(first, first + 1000))
        assert importer.step() == 2000
        assert importer.step() == 0
    assert ids(database) == {f"r{number}" for number in range(3000)}
    assert rows(database, schema.open_requests) == []
    journal.close()


def test_files_go_when_all_of_them_is_in_the_ledger(database: Database, folder: Path) -> None:
    importer = Importer(database, folder)
    journal = Journal(folder, 0, "group", SMALL)
    serve(journal, range(1000))
    before = len(list(folder.glob("*.journal")))
    importer.step()
    assert before > 2
    assert len(list(folder.glob("*.journal"))) <= 2  # the open one, and the next
    assert len(rows(database, schema.segments)) == 1
    serve(journal, range(1000, 1001))
    journal.close()
    importer.step()
    assert list(folder.iterdir()) == []
    assert rows(database, schema.segments) == []
    assert len(ids(database)) == 1001


def test_a_new_supervisor_goes_on_where_the_last_one_was(
    opened: Callable[[], Database], folder: Path
) -> None:
    journal = Journal(folder, 0, "group", SMALL)
    for first in range(0, 2000, 500):
        serve(journal, range(first, first + 500))
        assert Importer(opened(), folder).step() == 1000
    assert len(list(folder.glob("*.journal"))) <= 2
    journal.close()
    Importer(opened(), folder).step()
    assert len(ids(opened())) == 2000
    assert list(folder.iterdir()) == []


def test_two_supervisors_at_once_take_nothing_twice(
    opened: Callable[[], Database], folder: Path
) -> None:
    told: list[Refusal | End] = []

    def audit(connection: Connection, records: Sequence[End | Refusal]) -> None:
        told.extend(records)

    journal = Journal(folder, 0, "group")
    serve(journal, range(3000))
    importers = [Importer(opened(), folder, audit=audit) for _ in range(2)]
    threads = [threading.Thread(target=importer.step) for importer in importers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids(opened())) == 3000
    assert len(told) == 3000
    assert sum(importer.step() for importer in importers) == 0
    journal.close()


def test_requests_of_a_killed_gateway_are_charged_for_what_was_delivered(
    database: Database, folder: Path
) -> None:
    heard: list[End | Refusal] = []
    importer = Importer(
        database,
        folder,
        price=lambda model: Price(input=2, output=5) if model == "tiny" else Price(),
        audit=lambda connection, records: heard.extend(records),
    )
    killed(folder, begun=5, ended=2)
    assert importer.step() == 5 + 2 + 3
    found = {row.id: row for row in rows(database)}
    assert [row.outcome for row in found.values()] == ["ok", "ok", "crashed", "crashed", "crashed"]
    assert {row.is_estimated for row in found.values() if row.outcome == "crashed"} == {True}
    cut = found["r4"]
    assert (cut.input_tokens, cut.output_tokens, cut.cost_nanos) == (14, 50, 14 * 2 + 50 * 5)
    assert (cut.key, cut.tenant, cut.model, cut.at) == ("k1", "acme", "tiny", 1000.0)
    assert rows(database, schema.open_requests) == []
    assert list(folder.iterdir()) == []
    assert [each.id for each in heard] == ["r0", "r1", "r2", "r3", "r4"]
    assert [each.id for each in importer.take_crashed()] == ["r2", "r3", "r4"]
    assert importer.take_crashed() == []
    assert importer.step() == 0


def test_while_it_lives_its_requests_are_open(database: Database, folder: Path) -> None:
    importer = Importer(database, folder)
    journal = Journal(folder, 0, "group")
    journal.start(start(1))
    importer.step()
    assert [row.id for row in rows(database, schema.open_requests)] == ["r1"]
    journal.end(end(1))
    importer.step()
    assert rows(database, schema.open_requests) == []
    assert [row.outcome for row in rows(database)] == ["ok"]
    journal.close()


def test_refusals_are_heard_of_with_the_import_or_not_at_all(
    database: Database, folder: Path
) -> None:
    journal = Journal(folder, 0, "group")
    journal.refuse(refusal(1))
    serve(journal, range(1))

    def full(connection: Connection, records: Sequence[End | Refusal]) -> None:
        raise LedgerUnavailable("audit", "full")

    with pytest.raises(LedgerUnavailable):
        Importer(database, folder, audit=full).step()
    assert ids(database) == set()
    heard: list[End | Refusal] = []
    importer = Importer(database, folder, audit=lambda _, records: heard.extend(records))
    importer.step()
    assert heard == [refusal(1), end(0)]
    importer.step()
    assert len(heard) == 2
    journal.close()


def test_a_client_that_chooses_its_id_is_charged_each_time(
    database: Database, folder: Path
) -> None:
    journal = Journal(folder, 0, "group")
    for moment in range(3):
        journal.end(end(1, at=1000.0 + moment))
    Importer(database, folder).step()
    journal.end(end(1, at=2000.0))
    Importer(database, folder).step()
    assert sorted(row.at for row in rows(database)) == [1000.0, 1001.0, 1002.0, 2000.0]
    journal.close()


def test_what_was_imported_already_is_known_again(
    opened: Callable[[], Database], folder: Path
) -> None:
    """As when the ledger was restored, and what it knew of the files is older than its rows."""
    journal = Journal(folder, 0, "group")
    serve(journal, range(100))
    journal.end(end(1, at=2000.0))
    Importer(opened(), folder).step()
    with opened().begin() as connection:
        connection.execute(schema.segments.delete())
    before = rows(opened())
    assert Importer(opened(), folder).step() == 201
    assert rows(opened()) == before
    journal.close()


@pytest.mark.parametrize(
    "different",
    [
        {"id": "x" * 500, "model": "m" * 500},
        {"replica": "nul\0in it", "key": "\0"},
        {"output_tokens": 2**64 - 1, "input_tokens": -(2**63), "status": 2**40},
        {"duration_s": float("nan"), "ttft_s": float("inf"), "at": float("-inf")},
    ],
)
def test_whatever_is_in_a_record_is_kept_as_far_as_it_fits(
    database: Database, folder: Path, different: dict[str, Any]
) -> None:
    journal = Journal(folder, 0, "group")
    journal.end(msgspec.structs.replace(end(1), **different))
    fields = {name: value for name, value in different.items() if hasattr(start(1), name)}
    other = fields | {"id": "y" * 500}
    journal.start(msgspec.structs.replace(start(2), **other))
    Importer(database, folder).step()
    assert len(rows(database)) == 1
    assert len(rows(database, schema.open_requests)) == 1
    journal.end(msgspec.structs.replace(end(2), id="y" * 500))
    Importer(database, folder).step()
    assert len(rows(database)) == 2
    assert rows(database, schema.open_requests) == []
    journal.close()


def test_while_the_database_is_locked_nothing_is_lost(tmp_path: Path, folder: Path) -> None:
    database = Database.open(None, tmp_path, wait_s=0.2)
    importer = Importer(database, folder)
    journal = Journal(folder, 0, "group", SMALL)
    written = serve(journal, range(10))
    importer.step()
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    written |= serve(journal, range(10, 1000))
    with pytest.raises(LedgerUnavailable, match="locked"):
        importer.step()
    assert len(list(folder.glob("*.journal"))) > 2
    other.close()
    importer.step()
    assert ids(database) == written
    journal.close()
    database.close()


def test_a_server_is_killed_again_and_again(postgres: Postgres, folder: Path) -> None:
    database = Database.open(postgres.url(), folder)
    importer = Importer(database, folder)
    chance = random.Random(5)
    written: set[str] = set()
    journal = Journal(folder, 0, "group", SMALL)
    for round_ in range(3):
        written |= serve(journal, range(3000 * round_, 3000 * (round_ + 1)))
        failed: list[Exception] = []
        importing = threading.Thread(target=step_until_it_fails, args=(importer, failed))
        importing.start()
        threading.Event().wait(chance.uniform(0.0, 0.3))
        postgres.crash()
        importing.join()
        postgres.start()
        assert all(isinstance(error, LedgerUnavailable) for error in failed)
    importer.step()
    assert ids(database) == written
    journal.close()
    importer.step()
    assert list(folder.iterdir()) == []
    database.close()


def step_until_it_fails(importer: Importer, failed: list[Exception]) -> None:
    for _ in range(20):
        try:
            importer.step()
        except LedgerUnavailable as error:
            failed.append(error)
            return


def test_importers_are_killed_again_and_again(tmp_path: Path, folder: Path) -> None:
    journal = Journal(folder, 0, "group", SMALL)
    chance = random.Random(7)
    written: set[str] = set()
    Database.open(None, tmp_path).close()
    for round_ in range(6):
        written |= serve(journal, range(1500 * round_, 1500 * (round_ + 1)))
        child = multiprocessing.get_context("fork").Process(
            target=import_for_ever, args=(tmp_path, folder)
        )
        child.start()
        child.join(chance.uniform(0.02, 0.4))
        child.kill()
        child.join()
    journal.close()
    database = Database.open(None, tmp_path)
    Importer(database, folder).step()
    assert ids(database) == written
    assert list(folder.iterdir()) == []
    database.close()


def import_for_ever(home: Path, folder: Path) -> None:
    importer = Importer(Database.open(None, home), folder)
    while True:
        importer.step()


def test_a_database_whose_log_is_removed_gets_back_what_it_lost(
    tmp_path: Path, folder: Path
) -> None:
    database = Database.open(None, tmp_path)
    importer = Importer(database, folder)
    journal = Journal(folder, 0, "group", SMALL)
    written: set[str] = set()
    for numbers in (range(2000), range(2000, 2900), range(2900, 3000), range(3000, 3010)):
        written |= serve(journal, numbers)
        importer.step()
    # As it is on the disk when the power goes and somebody tidies up: SQLite's log is gone.
    there = tmp_path / "there"
    there.mkdir()
    (there / "ledger.sqlite3").write_bytes((tmp_path / "ledger.sqlite3").read_bytes())
    again = Database.open(None, there)
    before = ids(again)
    Importer(again, folder).step()
    assert before < written == ids(again)
    journal.close()
    for each in (database, again):
        each.close()


def test_damage_is_said_and_passed_over(
    database: Database, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(folder, 0, "group")
    serve(journal, range(50))
    journal.close()
    (file,) = folder.glob("*.journal")
    content = bytearray(file.read_bytes())
    content[1000:1100] = b"x" * 100
    file.write_bytes(content)
    Importer(database, folder).step()
    assert 46 <= len(ids(database)) < 50
    assert "damaged" in caplog.text
    assert list(folder.iterdir()) == []


def test_a_journal_in_a_form_of_tomorrow_is_left_alone(database: Database, folder: Path) -> None:
    journal = Journal(folder, 0, "group")
    serve(journal, range(5))
    journal.close()
    (file,) = folder.glob("*.journal")
    content = file.read_bytes()
    file.write_bytes(content.replace(b"journal 1", b"journal 2", 1))
    assert Importer(database, folder).step() == 0
    assert file.exists() and Journals(folder).writers()
