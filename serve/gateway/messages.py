"""Answers written through a plain ASGI `send`: for servers that offer no `Direct`, and for who
listens in to tell an answer in other words.
"""

import asyncio
import contextlib

from starlette.types import Receive, Send

from serve.gateway.direct import Listener

_HIGH_BYTES = 64 * 1024  # that wait for `send`


class Messages:
    """What `Direct` is, over messages: one task sends, one watches for the client leaving."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._listener: Listener | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._is_over = self._is_held = False
        self._head: dict[str, object] | None = None
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.is_started = False

    def listen(self, listener: Listener | None) -> bool:
        """Tell `listener` from now on (None: nobody)."""
        self._listener = listener
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._pump()), loop.create_task(self._watch())]
        return True

    def start(self, status: int, headers: list[tuple[bytes, bytes]], length: bytes | None) -> None:
        """The head of the answer."""
        self.is_started = True
        if length is not None:
            headers = [*headers, (b"content-length", length)]
        self._head = {"type": "http.response.start", "status": status, "headers": headers}
        self._news.set()

    def flush(self) -> None:
        """It leaves anyhow."""

    def write(self, data: bytes) -> None:
        """Some bytes. Never waits: a listener is told when it is too much."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > _HIGH_BYTES and not self._is_held and self._listener is not None:
            self._is_held = True
            self._listener.hold()
        self._news.set()

    def end(self, data: bytes) -> None:
        """The last bytes, if any."""
        if data:
            self._parts.append(data)
        self._is_over = True
        self._news.set()

    def break_off(self) -> None:
        """Nothing more comes; the server sees that the answer is not complete."""
        self._tasks[0].cancel()

    async def close(self) -> None:
        """Returns when everything is sent."""
        pump, watch = self._tasks
        self._listener = None
        watch.cancel()
        if not self._is_over:
            pump.cancel()
        for task in (pump, watch):
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _pump(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._head is not None:
                head, self._head = self._head, None
                await self._send(head)
            data, self._size = b"".join(self._parts), 0
            self._parts.clear()
            is_last = self._is_over
            if data or is_last:
                body = {"type": "http.response.body", "body": data, "more_body": not is_last}
                await self._send(body)
            if is_last:
                return
            if self._is_held:
                self._is_held = False
                if self._listener is not None:
                    self._listener.go_on()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._listener is not None:
            self._listener.left()
