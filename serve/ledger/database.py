"""The ledger's database: SQLite in the home, or PostgreSQL. Opened, it is at our schema."""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from serve.disk import locked
from serve.errors import ExtraMissing, LedgerUnavailable, NotWritable
from serve.ledger.schema import REVISION

_FILE = "ledger.sqlite3"
_WAIT_S = 10.0  # for whoever writes now
_SECRET_TERMS = ("password", "sslpassword", "passfile")
# All who write to one PostgreSQL ledger, on whichever machine, come one after another.
_WRITER = 0x696E686F757365  # "inhouse"
# Without these, a server that is cut off would be waited for until TCP gives up: a quarter hour.
_PG_CONNECT = {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 30_000}


class Database:
    """One per process; may be used from any thread.

    Whatever the database says becomes LedgerUnavailable.
    """

    def __init__(self, engine: Engine, shown: str, reading: Mapping[str, Any]) -> None:
        self._engine, self.url = engine, shown
        self._reading = engine.execution_options(is_reading=True, **reading)

    @classmethod
    def open(cls, url: str | None, home: Path, wait_s: float = _WAIT_S) -> "Database":
        """The ledger, made or brought to our schema if need be; safe at the same time as others.

        `url` None: SQLite, `home/ledger.sqlite3`. `wait_s`: how long to wait for others who write.
        Raises LedgerUnavailable, LedgerNewer, and ExtraMissing where the driver for PostgreSQL is
        not installed.
        """
        if url is not None:
            return _at(url, wait_s)._migrated()
        file = home / _FILE
        try:
            # Two who turn a new file into one with a write-ahead log would block each other.
            with locked(home / f".{_FILE}.lock", waiting=lambda: None):
                _make(file)
                return _in(file, wait_s)._migrated()
        except (OSError, NotWritable) as error:
            raise LedgerUnavailable(str(file), str(error)) from error

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that may write: the only one, whoever else wants to waits.

        What it did is there, and on the disk, when the block ends; nothing of it if it raises.
        """
        with self._told(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot: sees what was there when it began, waits for nobody, writes nothing."""
        with self._told(), self._reading.begin() as connection:
            yield connection

    def harden(self) -> bool:
        """Whether all that was written is in the database itself, no longer in a log beside it.

        SQLite's log is a file that somebody may remove; what is still needed to write its content
        again must not go before.
        """
        if self._engine.dialect.name != "sqlite":
            return True
        with self._told(), self._engine.connect() as connection:
            raw = connection.connection.cursor()
            try:
                (is_busy, _, _) = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                raw.close()
        return not is_busy

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def _migrated(self) -> "Database":
        try:
            if not self._is_current():
                # It takes as long to import as all the rest of the ledger, and is seldom needed.
                from serve.ledger.migrating import migrate

                with self.begin() as connection:
                    migrate(connection, self.url)
        except BaseException:
            self.close()
            raise
        return self

    def _is_current(self) -> bool:
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return False
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars()
            return list(found) == [REVISION]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise LedgerUnavailable(self.url, _reason(error)) from error


def _at(url: str, wait_s: float) -> Database:
    try:
        parsed = make_url(url)
        shown = _shown(parsed)
    except (ArgumentError, ValueError) as error:
        # Not a word of the text: a password may be anywhere in it.
        raise LedgerUnavailable("ledger.url", "is not a URL: postgresql://…") from error
    if parsed.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise LedgerUnavailable(shown, "must begin with postgresql://")
    options = {name: value for name, value in _PG_CONNECT.items() if name not in parsed.query}
    try:
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            connect_args=options,
            pool_pre_ping=True,  # a server that came back is another one for its connections
            hide_parameters=True,
        )
    except ImportError as error:
        raise ExtraMissing("keep the ledger in PostgreSQL", "postgres") from error
    event.listen(engine, "begin", _begin_postgres)
    event.listen(engine, "connect", partial(_connect_postgres, wait_s))
    reading = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return Database(engine, shown, reading)


def _in(file: Path, wait_s: float) -> Database:
    engine = create_engine(
        URL.create("sqlite", database=str(file)),
        connect_args={"timeout": wait_s, "isolation_level": None},
        hide_parameters=True,
    )
    event.listen(engine, "connect", _connect_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Database(engine, str(file), {})


def _make(file: Path) -> None:
    """Made with its mode, by us; never opened if it is there: closing a file takes all of SQLite's
    locks on it, that the process has, away."""
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return


def _connect_sqlite(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    # Each commit is on the disk: a revoked key stays revoked when the power goes.
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    is_reading = connection.get_execution_options().get("is_reading")
    connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if is_reading else 'OFF'}")
    connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")


def _connect_postgres(wait_s: float, connection: Any, _: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {round(wait_s * 1000)}")
    connection.commit()


def _begin_postgres(connection: Connection) -> None:
    if not connection.get_execution_options().get("is_reading"):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER})")


def _shown(url: URL) -> str:
    bare = url.set(password=None).difference_update_query(_SECRET_TERMS)
    return bare.render_as_string(hide_password=True)


def _reason(error: Exception) -> str:
    """What the database said, in one line, without the statement."""
    said = str(getattr(error, "orig", None) or error)
    return " ".join(said.split()) or type(error).__name__
