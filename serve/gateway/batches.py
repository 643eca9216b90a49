"""Files and batches of OpenAI's API: `/v1/files…` and `/v1/batches…`. Off unless the operator wants
them, because they put text on the disk, although encrypted: see `spool`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpcore
import msgspec

from serve.errors import (
    BadRequest,
    ControlLost,
    MethodNotAllowed,
    NoSuchObject,
    NotEnabled,
    NotRunning,
    RouteNotFound,
)
from serve.gateway import batch_book as book
from serve.gateway import files
from serve.gateway.batch_asking import Asking, Carry
from serve.gateway.batch_lines import ENDPOINTS
from serve.gateway.batch_runner import Runner
from serve.gateway.door import Caller
from serve.gateway.exchange import Request
from serve.gateway.reply import say
from serve.gateway.served import Served
from serve.gateway.spool import KEY_BYTES, Spool, new_id

FILES, BATCHES = "/v1/files", "/v1/batches"
_KEY_S = 2.0  # for so long a key is not asked for again
_CONTROL_S = 5.0
_MOST_BATCHES = 500  # of one tenant
_MOST_SHOWN = 100
_MOST_METADATA = 16


class _Wish(msgspec.Struct):
    """Body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None


class Batches:
    """One per gateway process. `folder` None: not turned on. `control`: path of control.sock.
    `read(request)`: its body, None if the client left meanwhile."""

    def __init__(
        self,
        folder: Path | None,
        control: Path,
        read: Callable[[Request], Awaitable[bytes | None]],
    ) -> None:
        self._folder = folder
        self._control = control
        self._read = read
        self._spool: tuple[bytes, Spool] | None = None
        self._asked_at = 0.0

    async def run(self, served: Served, carry: Carry) -> None:
        """Run batches as long as this is running, if no other gateway does; `carry` is the relay.
        Returns at once if they are not turned on."""
        if self._folder is not None:
            await Runner(self.spool, Asking(served, carry)).run()

    async def __call__(self, request: Request) -> None:
        """Answer one request. RequestError, or NotRunning or ControlLost without a supervisor, only
        while nothing has been sent to the client."""
        if self._folder is None:
            raise NotEnabled("files and batches", "server.batches")
        method, words = request.method, request.path.split("/")[2:]
        answer = _ANSWERS.get((len(words), words[0], *words[2:]))
        if answer is None:
            raise RouteNotFound(method, request.path)
        if method not in answer:
            raise MethodNotAllowed(method, request.path)
        asked = {
            key: values[-1] for key, values in parse_qs(request.query.decode("latin-1")).items()
        }
        await answer[method](self, request, asked, *words[1:2])

    async def spool(self) -> Spool:
        """The same one, as long as the supervisor has the same key. NotRunning, ControlLost."""
        if self._folder is None:
            raise NotEnabled("files and batches", "server.batches")
        now = time.monotonic()
        if self._spool is None or now - self._asked_at > _KEY_S:
            key = await _fetch_key(self._control)
            if self._spool is None or self._spool[0] != key:
                self._spool = key, Spool(self._folder, key)
            self._asked_at = now
        return self._spool[1]

    async def _upload(self, request: Request, query: dict[str, str]) -> None:
        spool = await self.spool()
        if (body := await self._read(request)) is not None:
            await files.upload(request, body, spool, request.caller.tenant.name)

    async def _list_files(self, request: Request, query: dict[str, str]) -> None:
        found = await asyncio.to_thread(files.cards, await self.spool(), request.caller.tenant.name)
        purpose = query.get("purpose")
        cards = [card.shown() for card in found if purpose in (None, card.purpose)]
        if query.get("order") == "asc":
            cards.reverse()
        await say(request, _page(cards, query))

    async def _show_file(self, request: Request, query: dict[str, str], id: str) -> None:
        await say(request, files.find(await self.spool(), id, request.caller.tenant.name).shown())

    async def _delete_file(self, request: Request, query: dict[str, str], id: str) -> None:
        spool = await self.spool()
        spool.remove(files.find(spool, id, request.caller.tenant.name).id)
        await say(request, {"id": id, "object": "file", "deleted": True})

    async def _download(self, request: Request, query: dict[str, str], id: str) -> None:
        spool = await self.spool()
        await files.download(request, spool, files.find(spool, id, request.caller.tenant.name))

    async def _create(self, request: Request, query: dict[str, str]) -> None:
        spool = await self.spool()
        if (body := await self._read(request)) is None:
            return
        wish = _read_wish(body)
        tenant = request.caller.tenant.name
        files.find(spool, wish.input_file_id, tenant)
        if len(await asyncio.to_thread(book.orders, spool, tenant)) >= _MOST_BATCHES:
            raise BadRequest(f"There may be {_MOST_BATCHES} batches in {files.KEPT_S // 3600} h.")
        now = int(time.time())
        order = book.Order(
            id=new_id("batch"),
            tenant=tenant,
            key=key.id if (key := request.caller.key) is not None else "",
            endpoint=wish.endpoint,
            input_file_id=wish.input_file_id,
            completion_window=wish.completion_window,
            created_at=now,
            expires_at=now + files.KEPT_S,
            metadata=wish.metadata,
        )
        book.write_order(spool, order)
        await say(request, book.shown(order, book.Progress()))

    async def _list_batches(self, request: Request, query: dict[str, str]) -> None:
        spool = await self.spool()
        orders = await asyncio.to_thread(book.orders, spool, request.caller.tenant.name)
        shown = [book.shown(order, book.read_progress(spool, order.id)) for order in orders]
        await say(request, _page(shown, query))

    async def _show_batch(self, request: Request, query: dict[str, str], id: str) -> None:
        spool = await self.spool()
        order = _find_order(spool, id, request.caller)
        await say(request, book.shown(order, book.read_progress(spool, id)))

    async def _cancel(self, request: Request, query: dict[str, str], id: str) -> None:
        spool = await self.spool()
        order = _find_order(spool, id, request.caller)
        if book.read_progress(spool, id).status in book.OVER:
            raise BadRequest("The batch is over already.")
        spool.mark(f"{id}.cancel")
        await say(request, book.shown(order, book.read_progress(spool, id)))


# How many words follow /v1, the first, and what follows an id → method → what answers.
_ANSWERS: dict[tuple[int | str, ...], dict[str, Callable[..., Awaitable[None]]]] = {
    (1, "files"): {"POST": Batches._upload, "GET": Batches._list_files},
    (2, "files"): {"GET": Batches._show_file, "DELETE": Batches._delete_file},
    (3, "files", "content"): {"GET": Batches._download},
    (1, "batches"): {"POST": Batches._create, "GET": Batches._list_batches},
    (2, "batches"): {"GET": Batches._show_batch},
    (3, "batches", "cancel"): {"POST": Batches._cancel},
}


def _read_wish(body: bytes) -> _Wish:
    try:
        wish = msgspec.json.decode(body, type=_Wish)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("The body is not valid JSON.") from None
    if wish.endpoint not in ENDPOINTS:
        raise BadRequest(f"The endpoint must be one of {', '.join(ENDPOINTS)}.", param="endpoint")
    if len(wish.metadata or {}) > _MOST_METADATA:
        raise BadRequest(f"There may be {_MOST_METADATA} entries.", param="metadata")
    return wish


def _find_order(spool: Spool, id: str, caller: Caller) -> book.Order:
    order = book.read_order(spool, id)
    if order is None or order.tenant != caller.tenant.name:
        raise NoSuchObject("batch", id)
    return order


def _page(records: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """OpenAI's list: `limit` records that come after the one with the id `after`."""
    try:
        limit = min(max(int(query.get("limit", _MOST_SHOWN)), 1), _MOST_SHOWN)
    except ValueError:
        raise BadRequest("limit must be a number.", param="limit") from None
    if after := query.get("after"):
        at = next((i for i, record in enumerate(records) if record["id"] == after), len(records))
        records = records[at + 1 :]
    shown = records[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(records) > len(shown),
    }


async def _fetch_key(control: Path) -> bytes:
    try:
        async with (
            asyncio.timeout(_CONTROL_S),
            httpcore.AsyncConnectionPool(uds=str(control)) as pool,
        ):
            answer = await pool.request("GET", "http://control/spool-key")
    except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
        raise NotRunning(str(control)) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, TimeoutError) as error:
        raise ControlLost(f"no key for the spool: {error}") from error
    if answer.status != 200 or len(answer.content) != KEY_BYTES:
        raise ControlLost(f"the key for the spool was answered with status {answer.status}")
    return answer.content
