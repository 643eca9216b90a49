"""Pooled connections to engines, over unix sockets and TCP, with TLS or without."""

import asyncio
import logging
import ssl
from collections import defaultdict
from functools import lru_cache
from urllib.parse import urlsplit

from serve.gateway.upstream import Connection
from serve.log import fields

_logger = logging.getLogger(__name__)
_MAX_IDLE = 256  # connections kept per engine
_FULL_RETRIES_S = (0.01, 0.05, 0.2, 1.0)  # the engine's backlog is full: it lives, come again
_CONNECT_S = 5.0


class Pool:
    """The connections to all engines that are idle, by address."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[Connection]] = defaultdict(list)

    def take(self, address: str) -> Connection | None:
        """An idle connection, if there is one."""
        idle = self._idle.get(address)
        if not idle:
            return None
        connection = idle.pop()
        connection.is_reused = True
        return connection

    async def connect(self, address: str) -> Connection | None:
        """A new connection; None if nobody is there, or who is there is not believed."""
        for retry_s in (*_FULL_RETRIES_S, None):
            try:
                async with asyncio.timeout(_CONNECT_S):
                    return await self._open(address)
            except BlockingIOError:
                if retry_s is None:
                    return None
                await asyncio.sleep(retry_s)
            except (OSError, TimeoutError) as error:  # a bad certificate is an OSError too
                reason = str(error) or "no answer in time"
                _logger.warning("not reached %s", fields(address=address, reason=reason))
                return None
        return None

    async def _open(self, address: str) -> Connection:
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            return (await loop.create_unix_connection(lambda: Connection(self, address), path))[1]
        url = urlsplit(address)
        is_tls = url.scheme == "https"
        port = url.port or (443 if is_tls else 80)
        context = _tls() if is_tls else None
        made = await loop.create_connection(
            lambda: Connection(self, address), url.hostname or "", port, ssl=context
        )
        return made[1]

    def keep(self, connection: Connection) -> bool:
        """Take a connection back; False if there are enough."""
        idle = self._idle[connection.address]
        if len(idle) >= _MAX_IDLE:
            return False
        idle.append(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """It is lost."""
        idle = self._idle.get(connection.address)
        if idle is not None:
            if connection in idle:
                idle.remove(connection)
            if not idle:
                del self._idle[connection.address]

    async def fetch(self, address: str, path: str, timeout_s: float) -> bytes | None:
        """The body of a GET that was answered with 200 in time; None otherwise."""
        connection: Connection | None = None
        over = asyncio.Event()
        parts: list[bytes] = []

        def news() -> None:
            if connection is not None:
                parts.append(connection.take())
                if connection.is_complete or connection.is_lost:
                    over.set()

        try:
            async with asyncio.timeout(timeout_s):
                connection = await self.connect(address)
                if connection is None:
                    return None
                head = f"GET {path} HTTP/1.1\r\nhost: {host_of(address)}\r\n\r\n"
                connection.ask(head.encode(), b"", news)
                await over.wait()
        except TimeoutError:
            return None
        finally:
            if connection is not None:
                connection.abort()
        is_whole = connection.is_complete and connection.status == 200
        return b"".join(parts) if is_whole else None


@lru_cache(256)
def host_of(address: str) -> str:
    """What an upstream at this address is called in `Host`."""
    return "engine" if address.startswith("unix:") else urlsplit(address).netloc


@lru_cache(1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
