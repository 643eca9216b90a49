"""Inhouse's gateway as it runs in earnest: keys, limits, books, prefix routing and metrics are on.

The only place that knows how a gateway process is told what to do.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway_bench.machine import running
from serve.limits import Table
from serve.quota import Key, Limits, Price, Tenant, digest_key
from serve.roster import Replica, Roster, ServedModel

KEY = "bench-key"
# Every limit is there to be checked, and none is ever reached.
_LIMITS = Limits(
    rpm=10**8, tpm=10**11, concurrency=10**5, tokens_per_day=10**14, tokens_per_month=10**15,
    nanos_per_day=10**17, nanos_per_month=10**17,
)  # fmt: skip
_PRICE = Price(input=270, cached_input=70, output=1100)
_KEYS = 64  # others, so that the one is looked for among many
_FIELDS = "from serve.gateway.config import Config as C; print(*C.__annotations__)"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway process. `journal`: its folder."""

    process: "subprocess.Popen[bytes]"
    port: int
    journal: Path

    def journal_bytes(self) -> int:
        if not self.journal.exists():
            return 0
        return sum(path.stat().st_blocks * 512 for path in self.journal.rglob("*"))


def roster(name: str, addresses: list[str], is_open: bool = False) -> Roster:
    """Two replicas or more, so that there is a choice to make by prefix."""
    replicas = tuple(
        Replica(f"{name}-{number}", address, kv_tokens=1_000_000)
        for number, address in enumerate(addresses)
    )
    model = ServedModel(
        name, (f"org/{name}",), "ready", 1_000_000, 1_700_000_000, replicas, routing="prefix",
        limits=_LIMITS, price=_PRICE, takes_salt=True,
    )  # fmt: skip
    words = [KEY, *(f"{KEY}-{number}" for number in range(_KEYS))]
    keys = tuple(
        Key(f"k{number}", digest_key(word), "bench", limits=_LIMITS)
        for number, word in enumerate(words)
    )
    return Roster(1, (model,), keys, (Tenant("bench", 1, _LIMITS),), is_open=is_open)


@contextlib.contextmanager
def running_gateway(
    folder: Path, core: int | None, told: Roster, source: Path | None = None
) -> Iterator[Gateway]:
    """A gateway process that follows the roster, not yet asked anything.

    `core`: what it is held to; None: nothing. `source`: a folder with another `serve/` to run.
    """
    folder.mkdir()
    journal, limits, secret = folder / "journal", folder / "limits", folder / "secret"
    journal.mkdir()
    Table.make(limits, 1)
    secret.write_bytes(os.urandom(32))
    secret.chmod(0o600)
    env = os.environ | ({"PYTHONPATH": str(source)} if source else {})
    listed = subprocess.run(
        [sys.executable, "-c", _FIELDS], env=env, cwd=folder, capture_output=True, check=True
    )
    known = set(listed.stdout.decode().split())
    with (
        control(folder / "control.sock", told),
        socket.create_server(("127.0.0.1", 0), backlog=4096) as listener,
    ):
        wish = {
            "fd": listener.fileno(), "control": str(folder / "control.sock"), "slot": 0,
            "drain_s": 1, "limits_file": str(limits), "journal_folder": str(journal),
            "commit": "group", "secret_file": str(secret), "most_waiting": 20_000, "wait_s": 60,
        }  # fmt: skip
        wish = {name: value for name, value in wish.items() if name in known}
        argv = [sys.executable, "-m", "serve.gateway", json.dumps(wish)]
        log = folder / "log.txt"
        with running(argv, core, log, env, (listener.fileno(),)) as process:
            yield Gateway(process, listener.getsockname()[1], journal)


@contextlib.contextmanager
def control(path: Path, told: Roster) -> Iterator[None]:
    """A stand-in for the supervisor: gives the roster to whoever asks, and keeps the line open."""
    held: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                held.append(connection)
                connection.recv(65536)
                connection.sendall(answer)

    line = told.to_line()
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n"
    answer += b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(line), line)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for connection in held:
                connection.close()
