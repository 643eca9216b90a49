"""Is the engine behind a unix socket there, well, and the right one?"""

import asyncio
from pathlib import Path
from typing import Literal

import httpx

_ANSWER_TIMEOUT_S = 5.0
_LOOK_FOR_SOCKET_S = 0.05
_ASK_STARTING_S = 0.1
_ASK_SERVING_S = 0.4

# silent: too busy to answer, which is no illness
Health = Literal["ok", "sick", "closed", "silent"]


class Probe:
    """Asks one engine. Close it after use."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client = httpx.AsyncClient(
            base_url="http://engine",
            # No TLS on a unix socket: not loading the certificates saves 30 ms of CPU each time.
            transport=httpx.AsyncHTTPTransport(uds=str(socket), verify=False),
            timeout=_ANSWER_TIMEOUT_S,
            trust_env=False,  # HTTP_PROXY is not for us
        )

    async def until_ready(self, model: str) -> None:
        """Return when /health says 200 and /v1/models lists `model`; waits for ever."""
        while not self._socket.exists():
            await asyncio.sleep(_LOOK_FOR_SOCKET_S)
        while await self._health() != "ok" or not await self._serves(model):
            await asyncio.sleep(_ASK_STARTING_S)

    async def until_bad(self) -> Health:
        """Return "sick" when /health says 5xx, "closed" when nobody listens any more."""
        while True:
            await asyncio.sleep(_ASK_SERVING_S)
            health = await self._health()
            if health in ("sick", "closed"):
                return health

    async def close(self) -> None:
        await self._client.aclose()

    async def _health(self) -> Health:
        try:
            response = await self._client.get("/health")
        except httpx.ConnectError:
            return "closed"
        except httpx.HTTPError:
            return "silent"
        return "sick" if response.is_server_error else "ok"

    async def _serves(self, model: str) -> bool:
        try:
            cards = (await self._client.get("/v1/models")).json()["data"]
            return any(card["id"] == model for card in cards)
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False
