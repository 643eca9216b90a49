"""Keys, usage and the audit log, in SQLite or PostgreSQL."""

from serve.ledger.books import Books
from serve.ledger.deeds import deed_of
from serve.ledger.desk import Desk
from serve.ledger.importing import Importer
from serve.ledger.records import Deed
from serve.ledger.usage import Usage

__all__ = ["Books", "Deed", "Desk", "Importer", "Usage", "deed_of"]
