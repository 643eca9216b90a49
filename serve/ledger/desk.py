"""The ledger as the supervisor holds it: keys are changed here, and gateways hear of it at once."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import Any

from serve.errors import BadRequest, Forbidden, InhouseError, LedgerError
from serve.ledger.books import Books
from serve.ledger.records import Deed
from serve.quota import Key

_logger = logging.getLogger(__name__)
_LOOK_EVERY_S = 2.0
By = tuple[str, str, str]  # who: actor, address, id of the request


class Desk:
    """One per supervisor. `publish` gets all keys that open the door whenever that changes, and
    None as long as there never was one: when the last is revoked, the door stays shut. It is
    called in the event loop and must return at once."""

    def __init__(self, books: Books, publish: Callable[[tuple[Key, ...] | None], None]) -> None:
        self._books, self._publish = books, publish
        self._version: tuple[int, ...] = ()
        self._turn = asyncio.Lock()

    async def refresh(self) -> None:
        """Publish the keys, if anybody has changed them since the last time."""
        async with self._turn:  # else an older answer could be published after a newer one
            version = await asyncio.to_thread(self._books.keys.version)
            if version != self._version:
                keys = await asyncio.to_thread(self._books.keys.active)
                self._version = version  # older than the keys at worst: they are read once more
                self._publish(keys if version[0] else None)

    async def follow(self, every_s: float = _LOOK_EVERY_S) -> None:
        """Notice what others change, on this host or another, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.refresh()
            except LedgerError as error:
                _logger.warning("keys are as they were: %s", error)

    async def keys(self) -> list[dict[str, Any]]:
        """The cards of all keys that ever were."""
        found = await asyncio.to_thread(self._books.keys.all, is_with_use=True)
        return [self._books.keys.card(record) for record in found]

    async def key(self, name: str) -> dict[str, Any]:
        """The card of the key of this id or name; UnknownKey."""
        return self._books.keys.card(await asyncio.to_thread(self._books.keys.find, name))

    async def create_key(self, terms: Key, by: By) -> dict[str, Any]:
        """`text`, and `key`, its card. Forbidden if somebody with a key wants to make an admin."""
        deed = _deed(by)
        if deed.actor.startswith("key:") and "admin" in terms.scopes:
            # Else one stolen key would have heirs that outlive it.
            refused = replace(deed, action="key.create", object=terms.name, result="refused")
            await self.record(refused)
            raise Forbidden("scope", "admin")
        made = await asyncio.to_thread(self._books.keys.issue, terms, deed)
        await self.refresh()
        return made

    async def revoke_key(self, name: str, by: By) -> dict[str, Any]:
        """Its card. It opens nothing any more when this returns, but for the time of a push."""
        record = await asyncio.to_thread(self._books.keys.revoke, name, _deed(by))
        await self.refresh()
        return self._books.keys.card(record)

    async def rotate_key(self, name: str, overlap_s: float, by: By) -> dict[str, Any]:
        """As `create_key` gives it: the successor, on the same terms."""
        reissue = self._books.keys.reissue
        made = await asyncio.to_thread(reissue, name, overlap_s, _deed(by))
        await self.refresh()
        return made

    async def records(self, which: dict[str, Any]) -> list[dict[str, Any]]:
        """Audit records; `which`: arguments of `AuditLog.records`."""
        found = await asyncio.to_thread(lambda: list(self._books.audit.records(**which)))
        return [asdict(record) for record in found]

    async def usage(
        self, by: Sequence[str], since: float | None, until: float | None
    ) -> list[dict[str, Any]]:
        """Sums over requests; `by`: what they are grouped by. See `Usage.totals`."""
        known: dict[str, Any] = {name: name for name in self._books.usage.dimensions}
        for name in by:
            if name not in known:
                raise BadRequest(f"`by` may be {', '.join(known)}.", "by")
        wanted = [known[name] for name in by]
        totals = await asyncio.to_thread(self._books.usage.totals, wanted, since, until)
        return [
            asdict(total) | {"group": dict(zip(by, total.group, strict=True))} for total in totals
        ]

    async def record(self, deed: Deed) -> None:
        """Put one deed into the audit log."""
        await asyncio.to_thread(self._books.audit.append, deed)

    @asynccontextmanager
    async def recorded(self, action: str, object: str, by: By) -> AsyncIterator[None]:
        """Do something that is in the audit log before it begins, and again with how it ended."""
        deed = replace(_deed(by), action=action, object=object)
        await self.record(replace(deed, result="asked"))
        try:
            yield
        except InhouseError as error:
            await self.record(replace(deed, result="failed", facts={"error": type(error).__name__}))
            raise
        await self.record(deed)


def _deed(by: By) -> Deed:
    actor, address, request = by
    return Deed(actor=actor, address=address, request=request)
