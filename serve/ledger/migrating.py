"""How a database comes to the newest schema: Alembic, driven by us instead of by its own files."""

import threading
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection

from serve.errors import LedgerNewer, LedgerUnavailable
from serve.ledger.schema import METADATA

MIGRATIONS = Path(__file__).parent / "migrations"
# What a migration calls (`alembic.op`) is one for the whole process.
_turn = threading.Lock()


def migrate(connection: Connection, url: str, steps: Path = MIGRATIONS) -> None:
    """Bring the database to our schema, in the transaction that the connection is in.

    LedgerNewer when its revision is none of ours. `url`: what errors call the database.
    """
    script = ScriptDirectory(str(steps))

    def missing(revision: Any, _: Any) -> Any:
        known = {each.revision for each in script.walk_revisions()}
        for held in revision if isinstance(revision, tuple) else (revision,):
            if held and held not in known:
                raise LedgerNewer(url, held)
        return script._upgrade_revs("head", revision)

    with _turn, EnvironmentContext(Config(), script, fn=missing) as environment:
        try:
            environment.configure(connection=connection, target_metadata=METADATA)
            environment.run_migrations()
        except (CommandError, ResolutionError) as error:
            raise LedgerUnavailable(url, str(error)) from error
