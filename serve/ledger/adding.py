"""Many rows into `usage` at once, each request once."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select, text

from serve.ledger.schema import usage

_NAMES = ", ".join(f'"{column.name}"' for column in usage.columns)
# One statement for all rows: PostgreSQL takes them in twice as fast as one after another.
_POSTGRES = text(
    f"INSERT INTO usage ({_NAMES}) SELECT {_NAMES}"
    " FROM json_populate_recordset(NULL::usage, CAST(:rows AS json)) ON CONFLICT DO NOTHING"
)
# By the driver itself: what SQLAlchemy does for each row would take longer than the row.
_PLACES = ", ".join(f":{column.name}" for column in usage.columns)
_SQLITE = f"INSERT INTO usage ({_NAMES}) VALUES ({_PLACES}) ON CONFLICT DO NOTHING"


def add_usage(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Those that are not there yet. Another request with the same id gets one of its own: a client
    may choose what it sends as its id, but not that it is not charged."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        added = connection.exec_driver_sql(_SQLITE, list(rows)).rowcount
    else:
        whole = msgspec.json.encode(rows).decode()
        added = connection.execute(_POSTGRES, {"rows": whole}).rowcount
    if added == len(rows):
        return
    began = _began(connection, [row["id"] for row in rows])
    twins = [_renamed(row) for row in rows if row["at"] != began[row["id"]]]
    add_usage(connection, twins)


def _began(connection: Connection, ids: Sequence[str]) -> dict[str, float]:
    known = connection.execute(select(usage.c.id, usage.c.at).where(usage.c.id.in_(ids)))
    return {row.id: row.at for row in known}


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    """The same name whenever it is asked for: what is imported again is known again."""
    return row | {"id": f"{row['id'][:100]}~{row['at']!r}"}
