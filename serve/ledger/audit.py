"""The audit log in the ledger: append, read, verify, trim. Who can write to the database can change
it, but not unseen: see `chain.py` and `seal.py`."""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, select

from serve.errors import AuditBroken
from serve.ledger.chain import BEGINNING, CUT, TRIM, link, verify
from serve.ledger.database import Database
from serve.ledger.records import Deed, Head, Record, Verdict
from serve.ledger.schema import audit
from serve.ledger.seal import Seal

_logger = logging.getLogger(__name__)
_PAGE_ROWS = 2000
_LARGEST_INSERT_ROWS = 500
_COLUMNS = [audit.c[name] for name in Record.__dataclass_fields__]


@dataclass(frozen=True, slots=True)
class Page:
    """One transaction that changes something, and the deeds that go into the log with it."""

    connection: Connection
    deeds: list[Deed] = field(default_factory=list)

    def write(self, deed: Deed) -> None:
        """The change and this are kept together, or neither is."""
        self.deeds.append(deed)


class AuditLog:
    """One chain. Writers in several threads, processes and hosts take turns."""

    def __init__(
        self, database: Database, home: Path, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._clock = clock
        self._seal = Seal(home)
        self._noted: Head | None = None

    def append(self, deed: Deed) -> None:
        """Record one deed; LedgerUnavailable if that cannot be done."""
        self.append_many([deed])

    def append_many(self, deeds: Sequence[Deed]) -> None:
        """Record them together, in this order."""
        if deeds:
            with self.writing() as page:
                page.deeds.extend(deeds)

    @contextmanager
    def writing(self) -> Iterator[Page]:
        """A transaction for a change and what the log says of it. No other writer is in one."""
        with self._database.begin() as connection:
            page = Page(connection)
            yield page
            head = self.append_in(connection, page.deeds)
        self.note(head)

    def append_in(self, connection: Connection, deeds: Iterable[Deed]) -> Head | None:
        """Record in somebody else's transaction; `note` what this gives when it is committed."""
        now = self._clock()
        timed = [deed if deed.at else replace(deed, at=now) for deed in deeds]
        if not timed:
            return None
        last = _last(connection)
        key = self._seal.key(last)
        known = self._seal.head(key)
        is_cut = known is not None and known.seq > last.seq
        if known is not None and is_cut:
            timed.insert(0, _cut(known, last, now))
        records = list(link(key, last, timed))
        for start in range(0, len(records), _LARGEST_INSERT_ROWS):
            rows = [asdict(record) for record in records[start : start + _LARGEST_INSERT_ROWS]]
            connection.execute(insert(audit), rows)
        return Head(records[-1].seq, records[-1].mac, is_cut)

    def note(self, head: Head | None) -> None:
        """Remember the end of the log outside of the database, once it is committed; what was
        rolled back is not noted."""
        if head is None or head == self._noted:
            return
        with self._database.read() as connection:
            found = connection.execute(select(audit.c.mac).where(audit.c.seq == head.seq)).scalar()
        if found == head.mac:
            self._seal.note(self._seal.key(head), head)
            self._noted = head

    def records(
        self,
        after: int = 0,
        since: float = 0.0,
        action: str = "",
        actor: str = "",
        last: int | None = None,
    ) -> Generator[Record, None, None]:
        """Those that are asked for, by number: above `after`, not before `since` (unix seconds),
        of an action (`key.*`: a whole family), of an actor, only the `last` so many of them."""
        wanted = select(*_COLUMNS).where(audit.c.at >= since).order_by(audit.c.seq)
        if actor:
            wanted = wanted.where(audit.c.actor == actor)
        if action.endswith("*"):
            wanted = wanted.where(audit.c.action.startswith(action[:-1], autoescape=True))
        elif action:
            wanted = wanted.where(audit.c.action == action)
        with self._database.read() as connection:
            if last is not None:
                after = _before_the_last(connection, wanted.where(audit.c.seq > after), last, after)
            while rows := connection.execute(
                wanted.where(audit.c.seq > after).limit(_PAGE_ROWS)
            ).all():
                yield from (Record(*row) for row in rows)
                after = rows[-1].seq

    def verify(self, noted: tuple[int, str] | None = None) -> Verdict:
        """Read all of it; AuditBroken names the first record that is wrong or missing.

        `noted`: number and code that a record had, as somebody wrote them down elsewhere.
        """
        with self._database.read() as connection:
            last = _last(connection)
        if not (last.seq or noted or self._seal.key_file.exists()):
            return Verdict(0, 0, BEGINNING)
        key = self._seal.key(last)
        head = self._seal.head(key)
        if head is None and last.seq:
            problem = f"{self._seal.head_file} is missing: nobody knows whether more came after it"
            raise AuditBroken(last.seq, problem)
        with closing(self.records()) as records:  # it may be left in the middle
            verdict = verify(key, records, head)
        if noted is not None and noted[0] >= verdict.first:
            with closing(self.records(after=noted[0] - 1)) as records:
                found = next(records, None)
            if found is None or (found.seq, found.mac) != noted:
                raise AuditBroken(noted[0], "it is not the one that was noted")
        return verdict

    def trim(self, before: float) -> int:
        """Remove what happened before that time; how many records. The log says so itself."""
        with self._database.begin() as connection:
            first, to = _span(connection, before)
            if to < first:
                return 0
            mac = connection.execute(select(audit.c.mac).where(audit.c.seq == to)).scalar_one()
            count = to - first + 1
            facts = {"from": first, "to": to, "mac": mac, "before": before}
            head = self.append_in(connection, [Deed(TRIM, str(count), facts=facts)])
            connection.execute(delete(audit).where(audit.c.seq <= to))
        self.note(head)
        return count


def _span(connection: Connection, before: float) -> tuple[int, int]:
    """The numbers of the first record, and of the last one of those that go."""
    first, last = connection.execute(select(func.min(audit.c.seq), func.max(audit.c.seq))).one()
    if first is None:
        return 1, 0
    kept = select(func.min(audit.c.seq)).where(audit.c.at >= before)
    first_kept = connection.execute(kept).scalar()
    return first, last if first_kept is None else first_kept - 1


def _last(connection: Connection) -> Head:
    newest = select(audit.c.seq, audit.c.mac).order_by(audit.c.seq.desc()).limit(1)
    row = connection.execute(newest).first()
    return Head(row.seq, row.mac) if row else Head(0, BEGINNING)


def _cut(known: Head, last: Head, now: float) -> Deed:
    _logger.error("the audit log was cut: it ended with %d, now with %d", known.seq, last.seq)
    facts = {"known": known.seq, "mac": known.mac, "found": last.seq}
    return Deed(CUT, str(known.seq), "noticed", facts=facts, at=now)


def _before_the_last(connection: Connection, wanted: Select[Any], count: int, after: int) -> int:
    """The number after which the newest `count` of what is wanted begin."""
    newest = wanted.with_only_columns(audit.c.seq).order_by(None).order_by(audit.c.seq.desc())
    return min(connection.execute(newest.limit(count)).scalars(), default=after + 1) - 1
