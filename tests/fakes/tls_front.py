"""TLS in front of a server on a unix socket, as somebody else's proxy would stand there."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import trustme

_LAST_TURNS = 20  # of the loop, until transports that were aborted are closed


@contextlib.contextmanager
def running_tls(socket: Path, shown: trustme.LeafCert) -> Iterator[int]:
    """The port of 127.0.0.1 at which `socket` answers those who believe what is `shown`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.configure_cert(context)
    ports: list[int] = []
    is_up, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await asyncio.start_server(
            lambda reader, writer: _pass_on(socket, reader, writer), "127.0.0.1", 0, ssl=context
        )
        ports.append(server.sockets[0].getsockname()[1])
        is_up.set()
        async with server:
            await over.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert is_up.wait(10)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


async def _pass_on(
    socket: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Until one of both sides ends."""
    inner_reader, inner_writer = await asyncio.open_unix_connection(socket)
    ways = ((reader, inner_writer), (inner_reader, writer))
    tasks = [asyncio.create_task(_pump(*way)) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        writer.close()  # what it still has is sent
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
    finally:
        inner_writer.transport.abort()
        writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
