"""The supervisor's books: who may enter, what was used, what limits know of it."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from serve.cli.front import journal_folder, limits_file
from serve.errors import InhouseError
from serve.journal import End, Refusal
from serve.ledger import Books, Deed, Desk, Importer, Usage, deed_of
from serve.limits import Table
from serve.quota import Key, Limits, Price, Scope, digest_key
from serve.settings import Settings

_logger = logging.getLogger(__name__)
_IMPORT_EVERY_S = 0.25
_TIDY_EVERY_S = 3600.0
_DAY_S = 86400.0
_EVERYTHING: tuple[Scope, ...] = ("inference", "admin", "metrics")


class Bookkeeping:
    """One per supervisor: `begin` before its gateways, `end` after them, `run` meanwhile.

    `set_keys`: hears of every change of those who may enter, None: everybody. `energy`: see
    `ledger.Importer`.
    """

    def __init__(
        self,
        settings: Settings,
        books: Books,
        set_keys: Callable[[tuple[Key, ...] | None], None],
        energy: Callable[[str, float, float], float | None],
    ) -> None:
        self._settings, self._books, self._set_keys = settings, books, set_keys
        self.desk = Desk(books, self._publish)
        self._own = own_keys(settings)
        self._usage = Usage(books.database)
        self._prices = {model.name: model.price for model in settings.models}
        self._importer = Importer(
            books.database, journal_folder(settings), energy, self._price, self._audit
        )
        self._head: Any = None  # of the audit log, as the last import left it
        self._table: Table | None = None
        self._seeded: set[tuple[str, str]] = set()
        self._problem = ""
        self._spent: Any = None  # when we began, by whom

    async def begin(self) -> None:
        """Take over what a supervisor before us has left, and tell limits and door of it."""
        settings = self._settings
        await self._import()
        file = limits_file(settings)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        Table.make(file, slots=settings.server.gateways)
        self._table = Table(file)
        self._spent = await asyncio.to_thread(self._usage.spent, time.time())
        await self.desk.refresh()
        facts = {"audit": settings.ledger.audit, "batches": settings.server.batches}
        await self.desk.record(Deed(actor="system", action="serve.start", facts=facts))

    async def run(self) -> None:
        """Until cancelled: journals into the ledger, others' keys to the gateways, retention."""
        await asyncio.gather(self._follow(), self.desk.follow(), self._tidy())

    async def end(self) -> None:
        """The gateways are gone: take over the last of it, and close."""
        await self._import()
        with suppress(InhouseError):  # told of already, by the import
            await self.desk.record(Deed(actor="system", action="serve.end"))
        if self._table is not None:
            self._table.close()
        self._books.close()

    def gateway_died(self, slot: int) -> None:
        """Give back what it had reserved; what it delivered is charged when that is read."""
        if self._table is not None:
            self._table.clear_slot(slot)

    def _publish(self, keys: tuple[Key, ...] | None) -> None:
        """`keys` None: there never was one in the ledger."""
        known = (*self._own, *(keys or ()))
        self._seed(known)
        self._set_keys(None if keys is None and not known else known)

    def _seed(self, keys: Sequence[Key]) -> None:
        """Tell the limits what was used this day and month by those that have any."""
        assert self._table is not None
        limited = [
            *(("key", key.id, key.limits) for key in keys),
            *(("tenant", tenant.name, tenant.limits) for tenant in self._settings.tenants),
            *(("model", model.name, model.limits) for model in self._settings.models),
        ]
        new = [row for row in limited if row[2] != Limits() and row[:2] not in self._seeded]
        if not new:
            return
        spent = self._spent  # a key that is made later has used nothing before
        of = {"key": spent.keys, "tenant": spent.tenants, "model": spent.models}
        for owner, name, _ in new:
            self._seeded.add((owner, name))
            used = of[owner].get(name)
            if used is not None:
                self._table.seed(owner, name, used.day, used.month)  # type: ignore[arg-type]

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_IMPORT_EVERY_S)
            await self._import()

    async def _import(self) -> None:
        """What cannot be taken over stays in the journal, and comes with the next call."""
        try:
            await asyncio.to_thread(self._importer.step)
            await asyncio.to_thread(self._books.audit.note, self._head)
            self._problem = ""
        except InhouseError as error:
            if self._problem != str(error):  # said once, not four times a second
                _logger.error("the ledger is behind: %s", error)
            self._problem = str(error)
        for end in self._importer.take_crashed():
            self._charge(end)

    def _charge(self, end: End) -> None:
        """What a killed gateway has delivered counts for the limits too."""
        if self._table is None:
            return  # of a life before this one: it is in the ledger, which the limits begin with
        tokens = end.input_tokens + end.output_tokens
        for owner, name in (("key", end.key), ("tenant", end.tenant), ("model", end.model)):
            if (owner, name) in self._seeded:
                self._table.charge(owner, name, tokens, end.cost_nanos)  # type: ignore[arg-type]

    def _price(self, model: str) -> Price:
        return self._prices.get(model, Price())

    def _audit(self, connection: Any, records: Sequence[End | Refusal]) -> None:
        """In the importer's transaction, and in its thread."""
        mode = self._settings.ledger.audit
        told = [each for each in records if mode == "all" or isinstance(each, Refusal)]
        if mode != "admin" and told:
            self._head = self._books.audit.append_in(connection, map(deed_of, told))

    async def _tidy(self) -> None:
        ledger = self._settings.ledger
        while True:
            now = time.time()
            with suppress(InhouseError):  # the next hour is as good
                oldest = now - ledger.audit_retention * _DAY_S
                await asyncio.to_thread(self._books.audit.trim, oldest)
                if ledger.retention is not None:
                    await asyncio.to_thread(self._usage.forget, now - ledger.retention * _DAY_S)
            await asyncio.sleep(_TIDY_EVERY_S)


def open_books(settings: Settings) -> Books:
    """The ledger and the folder of the journals. LedgerUnavailable, LedgerNewer."""
    folder: Path = journal_folder(settings)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Books.open(settings.ledger.url, settings.paths.home)


def has_keys(settings: Settings, books: Books) -> bool:
    """Whether nobody enters without one: as soon as there was any, also if all are revoked."""
    return bool(own_keys(settings)) or bool(books.keys.all())


def own_keys(settings: Settings) -> tuple[Key, ...]:
    """The one that `server.api_key` names: it may do everything."""
    key = settings.server.api_key
    if key is None:
        return ()
    digest = digest_key(key.get_secret_value())
    return (Key("api-key", digest, "default", scopes=_EVERYTHING, priority="interactive"),)
