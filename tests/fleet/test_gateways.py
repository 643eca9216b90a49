"""Gateway processes are kept alive on one socket."""

import asyncio
import socket
import sys
import textwrap
from pathlib import Path

from serve.errors import NotWritable
from serve.fleet import GatewayConfig, GatewayPool

# A gateway that answers with its process id, and ends when it is told "die".
FAKE = textwrap.dedent("""
    import os, signal, socket, sys
    listener = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        connection, _ = listener.accept()
        connection.sendall(str(os.getpid()).encode())
        if connection.recv(3) == b"die":
            os._exit(1)
        connection.close()
""")


async def ask(port: int, word: bytes = b"bye") -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    pid = int(await reader.read(16))
    writer.write(word)
    await writer.drain()
    await reader.read()
    writer.close()
    return pid


def test_a_gateway_that_dies_is_replaced_and_no_connection_is_refused(tmp_path: Path) -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            fd = listener.fileno()
            ended: list[tuple[int, int | None]] = []

            def argv(slot: int) -> tuple[str, ...]:
                return sys.executable, "-c", FAKE, str(fd)

            def died(slot: int) -> None:
                ended.append((slot, pool.status()[slot].pid))
                raise NotWritable("/run", "a problem that must not keep the next one away")

            pool = GatewayPool(GatewayConfig(argv, {}, fd, tmp_path, died), count=1)
            first = await ask(port)
            assert await ask(port, b"die") == first
            second = await ask(port)
            assert second != first
            (status,) = pool.status()
            assert (status.pid, status.restarts) == (second, 1)
            assert ended == [(0, None)], "told when it is gone, and nobody has its place yet"
            await pool.stop(5)
            assert pool.status()[0].restarts == 1

    asyncio.run(check())
