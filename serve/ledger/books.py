"""All of the ledger's books over one database."""

from dataclasses import dataclass
from pathlib import Path

from serve.ledger.audit import AuditLog
from serve.ledger.database import Database
from serve.ledger.keys import KeyBook
from serve.ledger.usage import Usage


@dataclass(frozen=True, slots=True)
class Books:
    """May be used from any thread. Whatever the database says becomes LedgerUnavailable."""

    database: Database
    keys: KeyBook
    audit: AuditLog
    usage: Usage

    @classmethod
    def open(cls, url: str | None, home: Path) -> "Books":
        """As `Database.open`. The audit log's key and head lie in `home`, whatever the `url`."""
        database = Database.open(url, home)
        audit = AuditLog(database, home)
        return cls(database, KeyBook(database, audit), audit, Usage(database))

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()
