"""From the journals into the ledger: each record once, whatever is killed when.

What was read and how far that is go into the database in one transaction. Files are deleted when
their records are in the database for good. While it cannot be written, records wait in the files.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from serve.journal import End, Journals, Refusal, Start, Writer
from serve.ledger.adding import add_usage
from serve.ledger.database import Database
from serve.ledger.rows import crashed, open_row, row_id, usage_row
from serve.ledger.schema import open_requests, segments
from serve.quota import Price

_BATCH_RECORDS = 1000

Energy = Callable[[str, float, float], float | None]
Audit = Callable[[Connection, Sequence[End | Refusal]], None]

log = logging.getLogger(__name__)


class Importer:
    """`energy(replica, at, duration_s)`: joules that a request took, if that is known.

    `price(model)`: for requests whose gateway was killed; all others were charged by it.
    `audit(connection, records)`: hears of all ends and refusals, in the transaction of the import.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        energy: Energy = lambda replica, at, duration_s: None,
        price: Callable[[str], Price] = lambda model: Price(),
        audit: Audit = lambda connection, records: None,
    ) -> None:
        self._database, self._journals = database, Journals(folder)
        self._energy, self._price, self._audit = energy, price, audit
        self._offsets: dict[str, int] | None = None  # of each file, as the database has them
        self._closed: set[str] = set()  # all of these is in the database
        self._crashed: list[End] = []

    def step(self) -> int:
        """Take over all that is there now; returns how many records that were.

        Requests that a gateway has left unfinished when it was killed are charged as crashed.
        Raises LedgerUnavailable, and NotWritable where the journals cannot be read; then what is
        missing comes with the next call. Not to be called by two threads at once.
        """
        if self._offsets is None:
            self._offsets = self._stored()
        count = 0
        for writer in self._journals.writers():
            count += sum(self._take(writer, segment) for segment in writer.segments)
            closed = [segment for segment in writer.segments if segment in self._closed]
            if writer.is_gone and len(closed) == len(writer.segments):
                count += self._bury(writer)
            elif closed:
                self._remove(closed, partial(self._journals.remove_segments, closed))
        return count

    def take_crashed(self) -> list[End]:
        """The requests that were charged as crashed since the last call: nobody has counted them
        yet as what they took. Unlike what `audit` hears, these are in the database already."""
        taken, self._crashed = self._crashed, []
        return taken

    def _stored(self) -> dict[str, int]:
        with self._database.read() as connection:
            rows = connection.execute(select(segments.c.name, segments.c.offset))
            return {row.name: row.offset for row in rows}

    def _take(self, writer: Writer, segment: str) -> int:
        """All of one file that is new."""
        assert self._offsets is not None
        count = 0
        while segment not in self._closed:
            offset = self._offsets.get(segment, 0)
            piece = self._journals.read(writer, segment, offset, _BATCH_RECORDS)
            if piece.lost_bytes:
                log.error("%s: %d bytes are damaged and were skipped", segment, piece.lost_bytes)
            if piece.records:
                with self._database.begin() as connection:
                    stored = _offset(connection, segment)
                    if stored == offset:
                        self._import(connection, segment, piece.records)
                        _mark(connection, segment, piece.end)
                if stored != offset:  # another supervisor has read on meanwhile
                    self._offsets[segment] = stored
                    continue
                self._offsets[segment] = piece.end
                count += len(piece.records)
            if piece.is_closed:
                self._closed.add(segment)
            elif not piece.records:
                break
        return count

    def _import(
        self, connection: Connection, segment: str, records: Sequence[Start | End | Refusal]
    ) -> None:
        ends = [record for record in records if isinstance(record, End)]
        over = {row_id(record.id) for record in ends}
        starts = {row_id(record.id): record for record in records if isinstance(record, Start)}
        still_open = [open_row(each, segment) for id, each in starts.items() if id not in over]
        _forget(connection, [*over - starts.keys(), *(row["id"] for row in still_open)])
        if still_open:
            connection.execute(insert(open_requests), still_open)
        self._charge(connection, ends)
        told = [record for record in records if not isinstance(record, Start)]
        if told:
            self._audit(connection, told)

    def _charge(self, connection: Connection, ends: Iterable[End]) -> None:
        add_usage(connection, [usage_row(end, self._joules(end)) for end in ends])

    def _joules(self, end: End) -> float | None:
        return self._energy(end.replica, end.at, end.duration_s) if end.replica else None

    def _bury(self, writer: Writer) -> int:
        """A gateway is gone and all that it wrote was taken over: what it left open has ended."""
        mine = open_requests.c.segment.startswith(f"{writer.name}.", autoescape=True)
        with self._database.read() as connection:
            is_any = connection.execute(select(open_requests.c.id).where(mine).limit(1)).first()
        count = 0
        if is_any:
            chunks = self._journals.delivered(writer)
            with self._database.begin() as connection:
                left = connection.execute(select(open_requests.c.record).where(mine)).scalars()
                ends = [crashed(row, chunks, self._price(row["model"])) for row in left]
                connection.execute(delete(open_requests).where(mine))
                self._charge(connection, ends)
                self._audit(connection, ends)
            self._crashed += ends
            count = len(ends)
            log.warning("a gateway was killed: %d requests were cut off", count)
        self._remove(writer.segments, partial(self._journals.remove_writer, writer))
        return count

    def _remove(self, names: Sequence[str], remove: Callable[[], None]) -> None:
        """First the files, for good, then how far they were read: else they were read again."""
        if not self._database.harden():
            return  # somebody reads at this moment; it is tried again with the next step
        remove()
        with self._database.begin() as connection:
            connection.execute(delete(segments).where(segments.c.name.in_(names)))
        self._closed -= set(names)
        for name in names:
            (self._offsets or {}).pop(name, None)


def _offset(connection: Connection, segment: str) -> int:
    place = segments.c.name == segment
    return connection.execute(select(segments.c.offset).where(place)).scalar() or 0


def _mark(connection: Connection, segment: str, end: int) -> None:
    place = segments.c.name == segment
    if not connection.execute(update(segments).where(place).values(offset=end)).rowcount:
        connection.execute(insert(segments).values(name=segment, offset=end))


def _forget(connection: Connection, ids: Sequence[str]) -> None:
    if ids:
        one = delete(open_requests).where(open_requests.c.id == bindparam("over"))
        connection.execute(one, [{"over": id} for id in ids])
