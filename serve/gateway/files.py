"""Files of OpenAI's API: what batches read and write, in the spool."""

import asyncio
import contextlib
import time
from collections.abc import Generator, Iterable
from itertools import chain
from typing import Any

import msgspec
from starlette.types import Receive

from serve.errors import BadRequest, NoSuchObject
from serve.gateway.exchange import Request
from serve.gateway.multipart import Part, read_form
from serve.gateway.reply import say
from serve.gateway.spool import FRAME_BYTES, Spool, new_id

KEPT_S = 24 * 3600
_UPLOADED, _MADE = "batch", "batch_output"
_LONGEST_NAME = 255
_MOST_FILES = 1000  # of one tenant
_LAST_LOOK_S = 0.05  # for the news that a client has gone, before its file is deleted


class FileCard(msgspec.Struct, frozen=True):
    """What is known of a file; times are unix seconds."""

    id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int

    def shown(self) -> dict[str, Any]:
        """OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


def keep(spool: Spool, tenant: str, filename: str, size: int, content: Iterable[bytes]) -> FileCard:
    """Put a file that a batch made into the spool. DiskFull."""
    return _keep(spool, (tenant, filename, _MADE), size, content, KEPT_S)


def find(spool: Spool, id: str, tenant: str) -> FileCard:
    """The tenant's file; NoSuchObject also for one of somebody else."""
    card = read_card(spool, id)
    if card is None or card.tenant != tenant or card.expires_at <= time.time():
        raise NoSuchObject("file", id)
    return card


def read_card(spool: Spool, id: str) -> FileCard | None:
    """Whoever's it is; None if there is none that can be read."""
    if not id.startswith("file-") or "." in id:
        return None
    try:
        return msgspec.json.decode(spool.head(id), type=FileCard)
    except (NoSuchObject, msgspec.MsgspecError):
        return None


def content(spool: Spool, id: str) -> Generator[bytes]:
    """The pieces of a file. NoSuchObject, also in the middle if somebody has changed it."""
    with contextlib.closing(spool.frames(id)) as frames:
        next(frames)  # the card
        yield from frames


def cards(spool: Spool, tenant: str | None = None) -> list[FileCard]:
    """All files (of a tenant), the newest first."""
    found = [card for id in spool.names("file-") if (card := read_card(spool, id)) is not None]
    mine = [card for card in found if tenant is None or card.tenant == tenant]
    return sorted(mine, key=lambda card: (card.created_at, card.id), reverse=True)


async def upload(request: Request, body: bytes, spool: Spool, tenant: str) -> None:
    """`POST /v1/files`."""
    form = {part.name: part for part in read_form(_type(request), body)}
    file, purpose = form.get("file"), form.get("purpose")
    if file is None or file.filename is None:
        raise BadRequest("The form must have a file.", param="file")
    if purpose is None or purpose.content != b"batch":
        raise BadRequest('The purpose of a file can only be "batch" here.', param="purpose")
    kept_s = _wanted_s(form.get("expires_after[seconds]"))
    if len(await asyncio.to_thread(cards, spool, tenant)) >= _MOST_FILES:
        raise BadRequest(f"There may be {_MOST_FILES} files: delete some first.", param="file")
    about = (tenant, file.filename[:_LONGEST_NAME], _UPLOADED)
    pieces = (
        file.content[at : at + FRAME_BYTES] for at in range(0, len(file.content), FRAME_BYTES)
    )
    card = await asyncio.to_thread(_keep, spool, about, len(file.content), pieces, kept_s)
    await say(request, card.shown())


async def download(request: Request, spool: Spool, card: FileCard) -> None:
    """`GET /v1/files/ID/content`; what a batch made is gone when it has been fetched whole."""
    pieces = content(spool, card.id)
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", b"%d" % card.bytes),
        (b"x-request-id", request.id),
    ]
    left = asyncio.create_task(_until_gone(request.receive))
    try:
        await request.send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            message = {"type": "http.response.body", "body": piece, "more_body": True}
            await request.send(message)
            await asyncio.sleep(0)  # a server may take all of it without a pause
            if left.done():
                return
        has_left = bool((await asyncio.wait([left], timeout=_LAST_LOOK_S))[0])
        await request.send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        pieces.close()
        left.cancel()
    if card.purpose == _MADE and not has_left:
        spool.remove(card.id)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _keep(
    spool: Spool, about: tuple[str, str, str], size: int, content: Iterable[bytes], kept_s: int
) -> FileCard:
    now = int(time.time())
    card = FileCard(new_id("file"), *about, size, now, now + kept_s)
    spool.seal(card.id, chain([msgspec.json.encode(card)], content))
    return card


def _wanted_s(part: Part | None) -> int:
    if part is None:
        return KEPT_S
    try:
        wanted = int(part.content)
    except ValueError:
        wanted = 0
    if wanted <= 0:
        raise BadRequest("expires_after[seconds] must be a number of seconds.")
    return min(wanted, KEPT_S)


def _type(request: Request) -> bytes:
    return request.headers.get(b"content-type", b"")
