"""A ledger, in SQLite and in PostgreSQL: what is true of one is true of the other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve.ledger.database import Database
from tests.ledger.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for all tests of the session."""
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Open the test's ledger, as often as it likes; all of them are closed at its end."""
    is_ours = request.param == "sqlite"
    url = None if is_ours else request.getfixturevalue("postgres").url()
    all_of_them: list[Database] = []

    def open_() -> Database:
        all_of_them.append(Database.open(url, tmp_path / "ledger"))
        return all_of_them[-1]

    yield open_
    for database in all_of_them:
        database.close()


@pytest.fixture
def database(opened: Callable[[], Database]) -> Database:
    """A ledger of its own, empty."""
    return opened()
