"""Stores with sealed weights, mirrors of them that run, and what is said to those by hand."""

import hashlib
import http.client
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from serve.mirror import Mirror, Stock, Terms
from serve.mirror.oid import git_blob_id
from serve.mirror.stock import Seals
from serve.sources import Kind
from serve.store import FileRecord, Manifest, Store
from serve.store.manifest import digest_of, record_of, seal, unseal
from tests.store.models import store_at

BIG_BYTES = 1024
COMMIT = "c0ffee" + "0" * 34


@dataclass
class House:
    """A store below `folder` in which weights are sealed without any network."""

    folder: Path
    sealed_at: float = 1_700_000_000.0

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def store(self) -> Store:
        return store_at(self.folder)

    def hold(
        self, name: str, files: Mapping[str, bytes], kind: Kind = "hf", asked: str = "main",
        commit: str = COMMIT, with_oids: bool = True,
    ) -> Manifest:  # fmt: skip
        """Weights called `name`, from a source called the same, as if they had been pulled."""
        root = self.folder / "files" / name / commit[:12]
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        records = tuple(
            self._record(root, path, content, with_oids and kind == "hf")
            for path, content in sorted(files.items())
        )
        self.sealed_at += 1
        made = Manifest(
            2, name, kind, name, asked, commit, root, records, self.sealed_at,
            digest_of(records), self.sealed_at, license="Apache-2.0",
        )  # fmt: skip
        return self.write(made)

    def write(self, manifest: Manifest) -> Manifest:
        (self.home / "manifests").mkdir(parents=True, exist_ok=True)
        seal(self.home, manifest)
        return manifest

    def forget(self, manifest: Manifest) -> None:
        unseal(self.home, manifest)

    def _record(self, root: Path, path: str, content: bytes, with_oid: bool) -> FileRecord:
        digest = hashlib.sha256(content).hexdigest()
        oid = digest if len(content) >= BIG_BYTES else git_blob_id(content)
        return replace(record_of(root, path, digest), oid=oid if with_oid else None)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Running:
    """A mirror on a thread of its own."""

    mirror: Mirror
    port: int
    thread: threading.Thread
    ended: list[bool]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """One request over a connection of its own; `Range="bytes=0-"`, `If_Range=…`."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            client.request(
                method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
            )
            got = client.getresponse()
            body = got.read()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, body)
        finally:
            client.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def say(self, sent: bytes) -> bytes:
        """Everything that is answered to these bytes, until the mirror closes."""
        with self.connect() as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def metric(self, line: str) -> float:
        """The value of a series: `inhouse_mirror_requests_total{route="info",status="200"}`."""
        text = self.ask("/metrics").body.decode()
        return next(
            (float(row.split()[-1]) for row in text.splitlines() if row.startswith(line)), 0
        )


@contextmanager
def serving(store: Seals, terms: Terms | None = None, *patterns: str) -> Iterator[Running]:
    """A mirror of the store while the `with` lasts."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    mirror = Mirror(Stock(store, patterns), listener, terms or Terms(drain_s=5))
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(mirror.serve()))
    thread.start()
    try:
        yield Running(mirror, port, thread, ended)
    finally:
        if thread.is_alive():
            mirror.stop()
            mirror.stop()
            thread.join(20)


def read_all(client: socket.socket) -> bytes:
    """What comes until the other side closes, or breaks the connection."""
    pieces = []
    try:
        while piece := client.recv(1 << 20):
            pieces.append(piece)
    except ConnectionError:
        pass
    return b"".join(pieces)


def settle(house: House) -> None:
    """Make the last change of seals an old one: as if the clock had moved on."""
    os.utime(house.home / "manifests", (1_700_000_000, 1_700_000_000))


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def big_house(house: House, size: int) -> bytes:
    content = os.urandom(1 << 16) * (size >> 16)
    house.hold("org/big", {"model.safetensors": content})
    return content


BIG = b"GET /org/big/resolve/main/model.safetensors HTTP/1.1\r\nConnection: close\r\n\r\n"


def started(mirror: Running, receive_bytes: int = 4096) -> socket.socket:
    """A client in the middle of a file: the head has come, and little more is taken."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(20)
    client.connect(("127.0.0.1", mirror.port))
    client.sendall(BIG)
    assert client.recv(17) == b"HTTP/1.1 200 OK\r\n"
    return client
