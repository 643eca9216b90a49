"""Answers that we make ourselves, as JSON."""

from typing import Any

import msgspec

from serve.gateway.exchange import Request, answer


async def say(request: Request, record: Any) -> None:
    """Answer with a record."""
    content = msgspec.json.encode(record)
    await answer(request, 200, content, [(b"content-type", b"application/json")])
