"""The ledger is opened, brought to our schema, and shut; what it says becomes an error of ours."""

import os
import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, insert, inspect, select, text

from serve.errors import LedgerNewer, LedgerUnavailable
from serve.ledger import migrating, schema
from serve.ledger.database import Database
from tests.ledger.postgres import Postgres

Open = Callable[[], Database]


def rows(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(schema.segments)).scalar_one()


def write(database: Database, name: str) -> None:
    with database.begin() as connection:
        connection.execute(insert(schema.segments).values(name=name, offset=1))


def test_migrations_make_exactly_our_tables(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.METADATA) == []


def test_the_revision_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(migrating.MIGRATIONS)).get_current_head() == schema.REVISION


def test_what_was_written_is_there_at_the_next_opening(opened: Open) -> None:
    first = opened()
    write(first, "a")
    first.close()
    assert rows(opened()) == 1


def test_nothing_is_left_of_a_transaction_that_fails(database: Database) -> None:
    with pytest.raises(KeyError), database.begin() as connection:
        connection.execute(insert(schema.segments).values(name="a", offset=1))
        raise KeyError
    assert rows(database) == 0


def test_many_open_it_for_the_first_time_at_once(opened: Open) -> None:
    together = threading.Barrier(8)

    def first(number: int) -> None:
        together.wait()
        write(opened(), str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(first, range(8)))
    assert rows(opened()) == 8


def test_writers_come_one_after_another(database: Database) -> None:
    write(database, "sum")

    def add(_: int) -> None:
        with database.begin() as connection:
            seen = connection.execute(select(schema.segments.c.offset)).scalar_one()
            connection.execute(schema.segments.update().values(offset=seen + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(40)))
    with database.read() as connection:
        assert connection.execute(select(schema.segments.c.offset)).scalar_one() == 41


def test_a_reader_sees_one_moment_and_holds_nobody_up(database: Database) -> None:
    write(database, "a")
    with database.read() as connection:
        count = select(func.count()).select_from(schema.segments)
        assert connection.execute(count).scalar_one() == 1
        write(database, "b")
        assert connection.execute(count).scalar_one() == 1
    assert rows(database) == 2


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(LedgerUnavailable, match="read-?only"), database.read() as connection:
        connection.execute(insert(schema.segments).values(name="a", offset=1))
    write(database, "a")


def test_one_of_a_newer_inhouse_is_left_alone(opened: Open) -> None:
    database = opened()
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(LedgerNewer) as refused:
        opened()
    assert refused.value.revision == "9999"
    assert "not-shown" not in refused.value.url


def test_a_migration_that_is_cut_leaves_nothing(database: Database, tmp_path: Path) -> None:
    steps = tmp_path / "migrations"
    (steps / "versions").mkdir(parents=True)
    whole = (migrating.MIGRATIONS / "versions" / "v0001.py").read_text()
    with database.begin() as connection:
        schema.METADATA.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
    calls = [line for line in whole.splitlines() if line.startswith("    _make_")]
    for call in calls:
        cut = whole.replace(f"{call}\n", "    raise KeyError\n", 1)
        (steps / "versions" / "v0001.py").write_text(cut)
        with pytest.raises(KeyError), database.begin() as connection:
            migrating.migrate(connection, "url", steps)
        with database.read() as connection:
            assert inspect(connection).get_table_names() == []
    with database.begin() as connection:
        migrating.migrate(connection, "url")
    write(database, "a")


def test_foreign_words_become_our_error(database: Database) -> None:
    with pytest.raises(LedgerUnavailable) as refused, database.begin() as connection:
        connection.execute(text("SELECT 1 FROM nowhere"))
    assert "nowhere" in refused.value.reason and "not-shown" not in str(refused.value)


@pytest.mark.parametrize(
    "url, said",
    [
        ("postgresql://u:not-shown@127.0.0.1:1/l?password=not-shown", "refused"),
        ("mysql://u:not-shown@h/l", "postgresql://"),
        ("postgresql://u:not-shown@h:port/l", "not a URL"),
        ("not-shown", "not a URL"),
    ],
)
def test_what_is_no_ledger_is_refused_without_the_password(
    url: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(LedgerUnavailable, match=said) as refused:
        Database.open(url, tmp_path)
    assert "not-shown" not in str(refused.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerUnavailable, match="not a database"):
        Database.open(None, tmp_path)


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable):
        Database.open(None, tmp_path / "file")


def test_the_file_is_for_us_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        database = Database.open(None, tmp_path)
    finally:
        os.umask(before)
    write(database, "a")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("ledger.sqlite3*")}
    database.close()
    assert modes == {0o600}


def test_a_log_that_is_removed_takes_nothing_that_was_hardened(tmp_path: Path) -> None:
    database = Database.open(None, tmp_path)
    write(database, "kept")
    assert database.harden()
    write(database, "in the log")
    kept = tmp_path / "without"
    kept.mkdir()
    (kept / "ledger.sqlite3").write_bytes((tmp_path / "ledger.sqlite3").read_bytes())
    database.close()
    there = Database.open(None, kept)
    assert rows(there) == 1
    there.close()


def test_while_somebody_reads_it_is_not_hardened(tmp_path: Path) -> None:
    database = Database.open(None, tmp_path, wait_s=0.1)
    write(database, "a")
    with database.read() as connection:
        assert connection.execute(select(schema.segments)).all()
        write(database, "b")
        assert not database.harden()
    assert database.harden()
    database.close()


def test_a_server_that_was_killed_and_came_back_is_found_again(postgres: Postgres) -> None:
    database = Database.open(postgres.url(), Path("unused"))
    write(database, "before")
    postgres.crash()
    try:
        with pytest.raises(LedgerUnavailable) as refused:
            write(database, "during")
        assert "not-shown" not in str(refused.value)
    finally:
        postgres.start()
    write(database, "after")
    assert rows(database) == 2
    database.close()


def test_alembic_is_not_imported_for_a_ledger_that_is_current(tmp_path: Path) -> None:
    Database.open(None, tmp_path).close()
    program = (
        "import sys; from pathlib import Path; from serve.ledger.database import Database; "
        "Database.open(None, Path(sys.argv[1])).close(); sys.exit('alembic' in sys.modules)"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program, str(tmp_path)]) == 0
