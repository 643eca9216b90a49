"""A stand-in for the supervisor's `control.sock`: streams rosters, and a test changes them."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from serve.roster import Roster

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
)


class FakeControl:
    """Runs in a thread of its own, so that a test stays a plain function."""

    def __init__(self, socket: Path, roster: Roster) -> None:
        self.socket = socket
        self.roster = roster
        self.spool_key = bytes(32)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def publish(self, roster: Roster) -> None:
        """Give everybody who follows this roster, and everybody who comes."""
        self._call(self._publish(roster.to_line(), roster))

    def say(self, raw: bytes) -> None:
        """Put any bytes into the feed."""
        self._call(self._publish(raw, self.roster))

    def start(self) -> None:
        self._call(self._start())

    def stop(self) -> None:
        """Go away: nobody listens, all feeds break."""
        self._call(self._stop())

    def _call(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _publish(self, line: bytes, roster: Roster) -> None:
        self.roster = roster
        for writer in self._writers:
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))

    async def _start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.socket)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.socket.unlink(missing_ok=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"GET /spool-key HTTP/1.1"):
                length = len(self.spool_key)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length)
                writer.write(self.spool_key)
                writer.close()
                return
            if not request.startswith(b"GET /roster HTTP/1.1"):
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                return
            line = b"\n" + self.roster.to_line()
            writer.write(_HEAD + b"%x\r\n%b\r\n" % (len(line), line))
            self._writers.add(writer)
            await reader.read(1)
        self._writers.discard(writer)
        writer.close()


@contextlib.contextmanager
def running_control(socket: Path, roster: Roster) -> Iterator[FakeControl]:
    """A control that answers at `socket` until the block ends."""
    control = FakeControl(socket, roster)
    thread = threading.Thread(target=control._loop.run_forever, daemon=True)
    thread.start()
    control.start()
    try:
        yield control
    finally:
        control.stop()
        control._loop.call_soon_threadsafe(control._loop.stop)
        thread.join()
        control._loop.close()
