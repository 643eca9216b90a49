"""The audit log in a database: gapless whoever writes, and no change to it unseen."""

import random
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from serve.errors import AuditBroken, LedgerUnavailable
from serve.journal import End, Refusal
from serve.ledger.audit import AuditLog
from serve.ledger.database import Database
from serve.ledger.deeds import deed_of
from serve.ledger.records import Deed
from serve.ledger.schema import audit


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def log(database: Database, home: Path, clock: Clock) -> AuditLog:
    return AuditLog(database, home, clock)


def fill(log: AuditLog, count: int) -> None:
    log.append_many([Deed("key.create", f"k{n}", facts={"n": n}) for n in range(count)])


def test_an_empty_log_is_whole(log: AuditLog) -> None:
    assert log.verify().count == 0 and list(log.records()) == []


def test_what_was_done_is_read_again(log: AuditLog, home: Path) -> None:
    log.append(Deed("key.create", "k1", "ok", "cli:0", "10.0.0.1", "r1", {"a": [1, None]}))
    log.append(Deed("serve.stop", at=7.0))
    first, second = log.records()
    assert (first.seq, first.at, first.facts) == (1, 1000.0, {"a": [1, None]})
    assert (second.seq, second.at, second.actor) == (2, 7.0, "system")
    assert log.verify().mac == second.mac
    key = home / "audit.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_text()) == 65


def test_records_are_found(log: AuditLog, clock: Clock) -> None:
    fill(log, 5)
    clock.now = 2000.0
    log.append_many([Deed("key.revoke", actor="cli:7"), Deed("keys"), Deed("key_x")])

    def numbers(**which: Any) -> list[int]:
        return [record.seq for record in log.records(**which)]

    assert numbers(after=6) == [7, 8]
    assert numbers(since=2000.0) == [6, 7, 8]
    assert numbers(action="key.revoke") == [6]
    assert numbers(action="key.*") == [1, 2, 3, 4, 5, 6]
    assert numbers(action="key.*", last=2) == [5, 6]
    assert numbers(actor="cli:7", last=9) == [6]
    assert numbers(action="none", last=9) == []
    assert numbers(after=8, last=9) == []


def test_many_are_read_page_by_page(log: AuditLog) -> None:
    fill(log, 4100)
    assert [record.seq for record in log.records()] == list(range(1, 4101))
    assert log.verify().count == 4100


CHANGES: tuple[tuple[str, Any], ...] = (
    ("at", 1000.5), ("actor", "cli:1"), ("address", "x"), ("action", "key.revoke"),
    ("object", "k9"), ("result", "refused"), ("request", "r"), ("facts", {"n": 9}),
    ("facts", []), ("mac", "0" * 64), ("mac", "ü"),
)  # fmt: skip


def test_a_change_in_the_database_is_found(log: AuditLog, database: Database) -> None:
    fill(log, 9)
    fourth = audit.c.seq == 4
    with database.read() as connection:
        sound = dict(connection.execute(select(audit).where(fourth)).mappings().one())
    for change in CHANGES:
        with database.begin() as connection:
            connection.execute(update(audit).where(fourth).values(sound | dict([change])))
        with pytest.raises(AuditBroken) as caught:
            log.verify()
        assert caught.value.at == 4, change
    with database.begin() as connection:
        connection.execute(update(audit).where(fourth).values(sound))
    assert log.verify().count == 9


def test_removals_and_insertions_are_found(log: AuditLog, database: Database) -> None:
    fill(log, 9)
    with database.begin() as connection:
        row = dict(connection.execute(select(audit).where(audit.c.seq == 5)).mappings().one())
        connection.execute(delete(audit).where(audit.c.seq == 5))
    with pytest.raises(AuditBroken) as caught:
        log.verify()
    assert caught.value.at == 5
    with database.begin() as connection:
        connection.execute(insert(audit).values(row))
    assert log.verify().count == 9
    with database.begin() as connection:
        connection.execute(insert(audit).values(row | {"seq": 10}))
    with pytest.raises(AuditBroken) as caught:
        log.verify()
    assert caught.value.at == 10


@pytest.mark.parametrize("left", [0, 6])
def test_a_cut_end_is_found_before_and_after_more_is_written(
    log: AuditLog, database: Database, left: int
) -> None:
    fill(log, 9)
    with database.begin() as connection:
        connection.execute(delete(audit).where(audit.c.seq > left))
    with pytest.raises(AuditBroken) as caught:
        log.verify()
    assert caught.value.at == left + 1
    fill(log, 30)  # longer again than it was
    cut = list(log.records(action="audit.cut"))
    assert [(record.seq, record.facts["known"]) for record in cut] == [(left + 1, 9)]
    with pytest.raises(AuditBroken) as caught:
        log.verify()
    assert caught.value.at == left + 1


def test_what_was_noted_elsewhere_is_compared(log: AuditLog) -> None:
    fill(log, 3)
    third = list(log.records())[-1]
    fill(log, 3)
    assert log.verify((3, third.mac)).last == 6
    for noted in ((3, "0" * 64), (9, third.mac), (4, third.mac)):
        with pytest.raises(AuditBroken) as caught:
            log.verify(noted)
        assert caught.value.at == noted[0]


def test_without_its_key_nothing_is_written_or_believed(log: AuditLog, home: Path) -> None:
    fill(log, 2)
    key = (home / "audit.key").read_text()
    (home / "audit.key").unlink()
    for act in (lambda: log.append(Deed("x")), log.verify):
        with pytest.raises(AuditBroken):
            act()
    (home / "audit.key").write_text("no hex")
    with pytest.raises(AuditBroken):
        log.append(Deed("x"))
    (home / "audit.key").write_text(key[:-2] + ("0" if key[-2] != "0" else "1"))
    with pytest.raises(AuditBroken):
        log.verify()
    (home / "audit.key").write_text(key)
    (home / "audit.head").unlink()
    with pytest.raises(AuditBroken, match=r"audit\.head"):
        log.verify()
    log.append(Deed("x"))
    assert log.verify().count == 3


def test_a_head_that_cannot_be_written_loses_no_record(log: AuditLog, home: Path) -> None:
    fill(log, 2)
    (home / "audit.lock").unlink()
    (home / "audit.lock").mkdir()
    log.append(Deed("x"))
    (home / "audit.lock").rmdir()
    assert log.verify().count == 3  # the head is behind, which is no fault
    log.append(Deed("y"))
    assert log.verify().count == 4


def test_old_records_go_and_the_log_says_so(log: AuditLog, clock: Clock) -> None:
    fill(log, 4)
    clock.now = 2000.0
    fill(log, 3)
    assert log.trim(1500.0) == 4
    assert log.trim(1500.0) == 0
    verdict = log.verify()
    assert (verdict.first, verdict.last) == (5, 8)
    (said,) = log.records(action="audit.trim")
    assert said.facts["from"] == 1 and said.facts["to"] == 4 and said.object == "4"
    clock.now = 3000.0
    assert log.trim(2500.0) == 4  # all, and the record of the first time
    assert (log.verify().first, log.verify().last) == (9, 9)
    assert AuditLog(log._database, Path("/nowhere")).trim(0) == 0


def test_more_than_was_trimmed_is_missed(log: AuditLog, database: Database, clock: Clock) -> None:
    fill(log, 4)
    clock.now = 2000.0
    fill(log, 3)
    log.trim(1500.0)
    with database.begin() as connection:
        connection.execute(delete(audit).where(audit.c.seq <= 5))
    with pytest.raises(AuditBroken) as caught:
        log.verify()
    assert caught.value.at == 5


def test_a_change_and_its_record_are_one(log: AuditLog, database: Database) -> None:
    fill(log, 1)

    class Trouble(Exception):
        pass

    with pytest.raises(Trouble), log.writing() as page:
        page.write(Deed("x"))
        raise Trouble
    assert log.verify().count == 1
    database.close()
    with log.writing() as page:
        page.write(Deed("y"))
    assert log.verify().count == 2


def test_a_database_that_is_gone_refuses(tmp_path: Path) -> None:
    database = Database.open(None, tmp_path)
    log = AuditLog(database, tmp_path)
    with database.begin() as connection:
        audit.drop(connection)
    with pytest.raises(LedgerUnavailable):
        log.append(Deed("x"))
    database.close()


def test_threads_take_turns(opened: Callable[[], Database], home: Path) -> None:
    logs = [AuditLog(opened(), home) for _ in range(4)]
    ready = threading.Barrier(4)

    def write(log: AuditLog) -> None:
        ready.wait()
        for n in range(10):
            log.append_many([Deed("x", str(n)), Deed("y")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, logs))
    assert logs[0].verify().count == 80
    pairs = [record.action for record in logs[0].records()]
    assert pairs == ["x", "y"] * 40


WRITER = """
import sys, pathlib
from serve.ledger import Books, Deed
books = Books.open(None, pathlib.Path(sys.argv[1]))
for n in range(10):
    books.audit.append(Deed("x", str(n)))
books.close()
"""


def test_processes_take_turns_from_the_first_record_on(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen(argv) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    database = Database.open(None, tmp_path)
    assert AuditLog(database, tmp_path).verify().count == 30
    database.close()


def test_requests_come_from_the_journal(log: AuditLog, database: Database, home: Path) -> None:
    refusal = Refusal("r1", 5.0, "", "", "/v1/models", 401, "invalid_api_key", "10.0.0.9")
    end = End("r2", 6.0, "k1", "t", "/m", "/v1/x", "m-0", 200, "ok", 5, 2, 7, client="::1")
    with database.begin() as connection:
        head = log.append_in(connection, [deed_of(refusal), deed_of(end)])
    assert not (home / "audit.head").exists()
    log.note(head)
    records = list(log.records())
    assert [(r.action, r.actor, r.object, r.result, r.request, r.at) for r in records] == [
        ("request.refuse", "nobody", "/v1/models", "invalid_api_key", "r1", 5.0),
        ("request", "key:k1", "/m", "ok", "r2", 6.0),
    ]
    assert records[1].facts["output_tokens"] == 7 and records[1].address == "::1"
    assert log.verify().count == 2


def test_what_was_rolled_back_is_not_the_end(log: AuditLog, database: Database) -> None:
    fill(log, 1)
    heads = []

    class Trouble(Exception):
        pass

    with pytest.raises(Trouble), database.begin() as connection:
        heads.append(log.append_in(connection, [Deed("x")]))
        raise Trouble
    log.note(heads[0])
    assert log.verify().count == 1
    fill(log, 1)
    assert log.verify().count == 2


def test_random_changes_of_rows_are_all_found(tmp_path: Path) -> None:
    database = Database.open(None, tmp_path)
    log, chance = AuditLog(database, tmp_path), random.Random(3)
    fill(log, 40)
    with database.read() as connection:
        rows = [dict(row) for row in connection.execute(select(audit)).mappings()]
    for _ in range(40):
        forged = [dict(row) for row in rows]
        victim, name = chance.choice(forged), chance.choice(["actor", "object", "mac", "request"])
        victim[name] += "x"
        with database.begin() as connection:
            connection.execute(delete(audit))
            connection.execute(insert(audit), forged)
        with pytest.raises(AuditBroken) as caught:
            log.verify()
        assert caught.value.at == victim["seq"]
    database.close()
