"""What the ledger knows of a key, and what terms it may have. Pure."""

from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Row

from serve.errors import SettingsError
from serve.quota import Key, Limits, Priority, Scope

LONGEST_NAME = 200  # characters, of a key or a tenant
_LAST_MOMENT = 253402300800.0  # the year 10000


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key in the book. Times are unix seconds. `replaced_by`: the key that a rotation made."""

    key: Key
    created_at: float
    revoked_at: float | None = None
    replaced_by: str | None = None
    used_at: float | None = None  # begin of the last request that was booked

    def state(self, now: float) -> str:
        """ "active", "rotated" (works until it expires), "expired" or "revoked"."""
        if self.revoked_at is not None:
            return "revoked"
        if self.key.expires_at is not None and now >= self.key.expires_at:
            return "expired"
        return "rotated" if self.replaced_by else "active"

    def card(self, now: float) -> dict[str, Any]:
        """What everybody who may see keys sees of it, as JSON has it."""
        shown = asdict(self.key) | {"state": self.state(now)}
        del shown["digest"]
        times = ("created_at", "revoked_at", "replaced_by", "used_at")
        return shown | {name: getattr(self, name) for name in times}


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key, and its text: this is the only time that anybody sees it."""

    text: str = field(repr=False)
    record: KeyRecord


class Stored(msgspec.Struct, frozen=True):
    """The column `terms`."""

    scopes: tuple[Scope, ...]
    models: tuple[str, ...]
    limits: Limits
    priority: Priority


def check_terms(terms: Key, now: float) -> None:
    """SettingsError if no key can be made on these terms."""
    problems = {
        "--tenant": not terms.tenant.strip() and "is needed: who pays?",
        "--name": max(map(len, (terms.name, terms.tenant))) > LONGEST_NAME and "is too long",
        "--scope": not terms.scopes and "is needed",
        "--expires": (
            terms.expires_at is not None
            and not now < terms.expires_at < _LAST_MOMENT
            and "lies in the past, or beyond all calendars"
        ),
    }
    for flag, problem in problems.items():
        if problem:
            raise SettingsError("key", flag, problem)
    if any(not text.isprintable() for text in (terms.tenant, terms.name, *terms.models)):
        raise SettingsError("key", "--name", "holds a character that cannot be printed")


def facts_of(terms: Key) -> dict[str, Any]:
    """What the audit log keeps of a new key: all of its terms that say something."""
    limits = {name: value for name, value in asdict(terms.limits).items() if value is not None}
    facts = asdict(terms) | {"limits": limits}
    del facts["id"], facts["digest"]
    return {name: value for name, value in facts.items() if value not in ((), {}, None, "")}


def record_of(row: Row[Any], used_at: float | None = None) -> KeyRecord:
    """A row of the table `keys`."""
    stored = msgspec.convert(row.terms, Stored)
    key = Key(
        row.id, row.digest, row.tenant, row.name,
        stored.scopes, stored.models, stored.limits, row.expires_at, stored.priority,
    )  # fmt: skip
    return KeyRecord(key, row.created_at, row.revoked_at, row.replaced_by, used_at)
