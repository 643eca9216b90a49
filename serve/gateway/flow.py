"""When a client's connection may be read and written: uvicorn's FlowControl, of a tenth its size.

Ten thousand connections have one each, and few of them ever wait.
"""

import asyncio


class Flow:
    """Of one connection."""

    __slots__ = ("_is_writable", "_transport", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._is_writable: asyncio.Event | None = None  # while somebody waits
        self.read_paused = self.write_paused = False

    async def drain(self) -> None:
        """Until more may be written."""
        if self.write_paused:
            if self._is_writable is None:
                self._is_writable = asyncio.Event()
            await self._is_writable.wait()

    def pause_reading(self) -> None:
        """Read nothing, until `resume_reading`."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The client does not take what it gets."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """It takes it again."""
        self.write_paused = False
        waiting, self._is_writable = self._is_writable, None
        if waiting is not None:
            waiting.set()
