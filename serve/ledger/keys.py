"""API keys: made, listed, revoked, rotated, each in one transaction with its audit record."""

import difflib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from serve.errors import SettingsError, UnknownKey
from serve.ledger.audit import AuditLog
from serve.ledger.database import Database
from serve.ledger.key_record import (
    LONGEST_NAME,
    Issued,
    KeyRecord,
    Stored,
    check_terms,
    facts_of,
    record_of,
)
from serve.ledger.key_text import id_in, make_key_text
from serve.ledger.records import Deed
from serve.ledger.schema import keys, usage
from serve.quota import Key, digest_key

_NEAR = 2
_PAGE_ROWS = 500


class KeyBook:
    """All keys that ever were. What cannot be recorded in the audit log is not done."""

    def __init__(
        self, database: Database, audit: AuditLog, clock: Callable[[], float] = time.time
    ) -> None:
        self._database, self._audit, self._clock = database, audit, clock
        self._known: dict[str, Key] = {}

    def all(self, is_with_use: bool = False) -> tuple[KeyRecord, ...]:
        """Every key, the oldest first. `is_with_use`: with `used_at`, which takes longer."""
        with self._database.read() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created_at, keys.c.id)).all()
            used = _last_uses(connection) if is_with_use else {}
        return tuple(record_of(row, used.get(row.id)) for row in rows)

    def find(self, name: str) -> KeyRecord:
        """The key of this id, or the only one of this name that is neither revoked nor replaced;
        UnknownKey."""
        with self._database.read() as connection:
            return _find(connection, name)

    def find_text(self, text: str) -> KeyRecord:
        """The key of this text; SettingsError if that has a typo, UnknownKey if it is not ours."""
        id = id_in(text)
        record = self.find(id)
        if record.key.digest != digest_key(text):
            raise UnknownKey(id)
        return record

    def active(self) -> tuple[Key, ...]:
        """Those that open the door now, as rosters have them."""
        ends_later = keys.c.expires_at.is_(None) | (keys.c.expires_at > self._clock())
        live = select(keys.c.id, keys.c.expires_at).where(keys.c.revoked_at.is_(None), ends_later)
        with self._database.read() as connection:
            rows = connection.execute(live.order_by(keys.c.created_at, keys.c.id)).all()
            known = dict(self._known)
            new = [row.id for row in rows if row.id not in known]
            known |= {key.id: key for key in _keys(connection, new)}
        # Of all that a key is, only its end may change: the rest is read and understood once.
        found = (
            key if key.expires_at == end else replace(key, expires_at=end)
            for key, end in ((known[row.id], row.expires_at) for row in rows)
        )
        self._known = {key.id: key for key in found}
        return tuple(self._known.values())

    def card(self, record: KeyRecord) -> dict[str, Any]:
        """What everybody who may see keys sees of one, as JSON has it."""
        return record.card(self._clock())

    def version(self) -> tuple[int, ...]:
        """Changes with every change to a key, whoever makes it; quick to ask. Begins with the
        number of keys that ever were."""
        # Keys are never removed, and each of these is set once.
        counts = [func.count(c) for c in (keys.c.id, keys.c.revoked_at, keys.c.replaced_by)]
        with self._database.read() as connection:
            return tuple(connection.execute(select(*counts)).one())

    def create(self, terms: Key, by: Deed) -> Issued:
        """A new key with all that `terms` say but id and digest; SettingsError if they are none.

        `by`: who wants it, from where, in which request.
        """
        check_terms(terms, self._clock())
        with self._audit.writing() as page:
            issued = self._issue(page.connection, terms)
            page.write(_deed("key.create", issued.record.key, by, facts_of(terms)))
        return issued

    def issue(self, terms: Key, by: Deed) -> dict[str, Any]:
        """`create`, as JSON has it: `text`, and `key`, its card."""
        return self._told(self.create(terms, by))

    def reissue(self, name: str, overlap_s: float, by: Deed) -> dict[str, Any]:
        """`rotate`, as JSON has it."""
        return self._told(self.rotate(name, overlap_s, by))

    def revoke(self, name: str, by: Deed) -> KeyRecord:
        """The key opens nothing any more, and never will again."""
        now = self._clock()
        with self._audit.writing() as page:
            record = _find(page.connection, name)
            if record.revoked_at is None:
                _set(page.connection, record.key.id, revoked_at=now)
                page.write(_deed("key.revoke", record.key, by))
            return _find(page.connection, record.key.id)

    def rotate(self, name: str, overlap_s: float, by: Deed) -> Issued:
        """A new key on the same terms; the old one works for `overlap_s` more at most.

        SettingsError if it works no more, or has a successor already.
        """
        now = self._clock()
        with self._audit.writing() as page:
            old = _find(page.connection, name)
            state = old.state(now)
            if state != "active":
                hint = f"its successor is {old.replaced_by}" if old.replaced_by else None
                raise SettingsError("key", old.key.id, f"is {state} and cannot be rotated", hint)
            issued = self._issue(page.connection, old.key)
            ends_at = min(now + overlap_s, old.key.expires_at or now + overlap_s)
            successor = issued.record.key.id
            _set(page.connection, old.key.id, expires_at=ends_at, replaced_by=successor)
            facts = {"successor": successor, "works_until": ends_at}
            page.write(_deed("key.rotate", old.key, by, facts))
        return issued

    def _told(self, issued: Issued) -> dict[str, Any]:
        return {"text": issued.text, "key": self.card(issued.record)}

    def _issue(self, connection: Connection, terms: Key) -> Issued:
        made = make_key_text()
        key = replace(terms, id=made.id, digest=digest_key(made.text))
        stored = Stored(terms.scopes, terms.models, terms.limits, terms.priority)
        row = {
            "id": key.id, "digest": key.digest, "tenant": key.tenant, "name": key.name,
            "terms": msgspec.to_builtins(stored), "created_at": self._clock(),
            "expires_at": key.expires_at,
        }  # fmt: skip
        connection.execute(insert(keys).values(row))
        return Issued(made.text, KeyRecord(key, row["created_at"]))


def _deed(action: str, key: Key, by: Deed, facts: dict[str, Any] | None = None) -> Deed:
    more = {"tenant": key.tenant} | (facts or {})
    return replace(by, action=action, object=key.id, facts=more)


def _set(connection: Connection, id: str, **values: Any) -> None:
    connection.execute(update(keys).where(keys.c.id == id).values(values))


def _find(connection: Connection, name: str) -> KeyRecord:
    by_id = connection.execute(select(keys).where(keys.c.id == name)).first()
    if by_id is not None:
        return record_of(by_id)
    newest = keys.c.revoked_at.is_(None), keys.c.replaced_by.is_(None)
    by_name = select(keys).where(keys.c.name == name, *newest).limit(2)
    named = connection.execute(by_name).all() if name else []
    if len(named) == 1:
        return record_of(named[0])
    raise UnknownKey(name, tuple(row.id for row in named) or _near(connection, name))


def _near(connection: Connection, name: str) -> tuple[str, ...]:
    rows = connection.execute(select(keys.c.id, keys.c.name)).all()
    known = [word for row in rows for word in (row.id, row.name) if word]
    return tuple(difflib.get_close_matches(name[:LONGEST_NAME], known, n=_NEAR))


def _keys(connection: Connection, ids: list[str]) -> Iterator[Key]:
    for start in range(0, len(ids), _PAGE_ROWS):
        wanted = select(keys).where(keys.c.id.in_(ids[start : start + _PAGE_ROWS]))
        yield from (record_of(row).key for row in connection.execute(wanted))


def _last_uses(connection: Connection) -> dict[str, float]:
    last = select(usage.c.key, func.max(usage.c.at).label("at")).group_by(usage.c.key)
    return {row.key: row.at for row in connection.execute(last)}
