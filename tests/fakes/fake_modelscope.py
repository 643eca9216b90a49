"""A ModelScope for its real client: an HTTP server with repositories of bytes.

In a test: `with FakeModelScope({"org/model": {"config.json": b"{}"}}) as scope: … scope.endpoint`.

It speaks what the client uses: `/api/v1/models/R/repo/files?Revision=V` lists with sizes and
sha256, `/api/v1/models/R/repo?Revision=V&FilePath=F` gives a file, with Range; big files by a
redirect to `/cdn/` on another host name.
"""

import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, quote, unquote, urlsplit

_FILES = re.compile(r"/api/v1/models/(?P<repo>[^/]+/[^/]+)/repo/files")
_FILE = re.compile(r"/api/v1/models/(?P<repo>[^/]+/[^/]+)/repo")
_CDN = re.compile(r"/cdn/(?P<repo>[^/]+/[^/]+)/(?P<file>.+)")
_PIECE_BYTES = 64 * 1024


@dataclass
class Faults:
    """What goes wrong. Counts go down with every use; `reset_at` is where in a file.

    `refuse`: a status for all requests. `busy`, `broken`: as many requests for files are answered
    429 and 503. `lie`: file → the bytes really sent. `without_hash`: the listing has no Sha256.
    `stall_at`: send no more from there on until `resume` is set; `stalled` tells that it is so.
    `listing`: what is answered instead of a listing.
    """

    refuse: int | None = None
    busy: int = 0
    broken: int = 0
    reset_at: int | None = None
    resets: int = 0
    lie: dict[str, bytes] = field(default_factory=dict)
    without_hash: bool = False
    stall_at: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)
    listing: bytes | None = None


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]


class FakeModelScope:
    """The server on a thread of its own, while the `with` lasts. Its only branch is `master`."""

    def __init__(self, repos: Mapping[str, Mapping[str, bytes]], big_bytes: int = 1024) -> None:
        self.repos = {name: dict(files) for name, files in repos.items()}
        self.big_bytes = big_bytes
        self.faults = Faults()
        self.requests: list[Request] = []
        self.sent_bytes = 0
        self._server = _Server(self)
        port = self._server.server_address[1]
        self.endpoint, self.cdn = f"http://127.0.0.1:{port}", f"http://localhost:{port}"

    def asked_for(self, part: str) -> list[Request]:
        """The requests whose path contains `part`."""
        return [one for one in self.requests if part in one.path]

    def __enter__(self) -> "FakeModelScope":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.faults.resume.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, scope: FakeModelScope) -> None:
        self.scope = scope
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients of a faulty server hang up; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        scope, faults = self.server.scope, self.server.scope.faults
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        scope.requests.append(Request(self.command, unquote(self.path), dict(self.headers.items())))
        revision = query.get("Revision", ["master"])[0]
        if faults.refuse is not None:
            self._answer(faults.refuse, {"Code": 1, "Message": "refused", "Success": False})
        elif match := _FILES.fullmatch(path):
            self._list(match["repo"], revision)
        elif match := _FILE.fullmatch(path):
            self._file(match["repo"], revision, query["FilePath"][0])
        elif match := _CDN.fullmatch(path):
            self._send_file(match["file"], scope.repos[match["repo"]][match["file"]])
        else:
            self._gone()

    do_HEAD = do_POST = do_GET

    def _list(self, repo: str, revision: str) -> None:
        scope = self.server.scope
        if repo not in scope.repos or revision != "master":
            self._gone()
            return
        if scope.faults.listing is not None:
            self._send(200, {"Content-Type": "application/json"}, scope.faults.listing)
            return
        folders = {name.partition("/")[0] for name in scope.repos[repo] if "/" in name}
        rows = [{"Path": name, "Name": name, "Type": "tree", "Size": 0} for name in folders]
        for name, data in scope.repos[repo].items():
            row = {"Path": name, "Name": name.rpartition("/")[2], "Type": "blob", "Size": len(data)}
            if not scope.faults.without_hash:
                row["Sha256"] = hashlib.sha256(data).hexdigest()
            rows.append(row)
        self._answer(200, {"Code": 200, "Data": {"Files": rows}, "Success": True})

    def _file(self, repo: str, revision: str, file: str) -> None:
        scope, faults = self.server.scope, self.server.scope.faults
        data = scope.repos.get(repo, {}).get(file)
        if data is None or revision != "master":
            self._gone()
        elif faults.busy > 0:
            faults.busy -= 1
            self._answer(429, {"Code": 429, "Message": "too many", "Success": False})
        elif faults.broken > 0:
            faults.broken -= 1
            self._answer(503, {"Code": 503, "Message": "broken", "Success": False})
        elif len(data) >= scope.big_bytes:
            self._send(302, {"Location": f"{scope.cdn}/cdn/{repo}/{quote(file)}"}, b"")
        else:
            self._send_file(file, data)

    def _gone(self) -> None:
        answer = {"Code": 10010205001, "Message": "record not found", "Success": False}
        self._answer(404, answer)

    def _send_file(self, name: str, data: bytes) -> None:
        data, begin = self.server.scope.faults.lie.get(name, data), 0
        headers = {"Content-Type": "application/octet-stream"}
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            begin = int(wanted[1])
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self._send(206 if begin else 200, headers, data[begin:], begin)

    def _answer(self, status: int, body: object) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, begin: int = 0) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        scope, faults = self.server.scope, self.server.scope.faults
        for offset in range(0, len(body), _PIECE_BYTES):
            position = begin + offset
            if faults.resets > 0 and faults.reset_at is not None and position >= faults.reset_at:
                faults.resets -= 1
                self._reset()
                return
            if faults.stall_at is not None and position >= faults.stall_at:
                faults.stalled.set()
                faults.resume.wait()
            piece = body[offset : offset + _PIECE_BYTES]
            self.wfile.write(piece)
            scope.sent_bytes += len(piece)

    def _reset(self) -> None:
        """Close with RST, as a dying machine or a strict firewall does."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
