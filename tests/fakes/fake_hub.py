"""A Hub for the real `huggingface_hub` client: an HTTP server with repositories of bytes and files.

In a test: `with FakeHub({"org/model": {"config.json": b"{}"}}) as hub: … hub.endpoint`.
As a program: `python tests/fakes/fake_hub.py ORG/NAME=FOLDER …` prints its endpoint and serves;
files are sent by the kernel, so that a measurement measures the client.

It speaks what the client uses: `/api/models/R/revision/V?blobs=true`, `/tree/V`, HEAD and GET of
`/R/resolve/V/FILE` with ETag, X-Repo-Commit, X-Linked-Etag, X-Linked-Size and Range, big files by a
redirect to `/cdn/` on another host name. `Faults` says what goes wrong; `requests` what was asked.
"""

import hashlib
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

if __name__ == "__main__":  # as a program, from any folder
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fakes import fake_xet
from tests.fakes.contents import Content, git_id, sha256, size_of

_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_CDN = re.compile(r"/cdn/(?P<sha256>[0-9a-f]{64})")
_XET = re.compile(r"/(?P<what>v\d/reconstructions|xorb)/(?P<sha256>[0-9a-f]{64})")
_PIECE_BYTES = 64 * 1024


@dataclass
class Faults:
    """What goes wrong. Counts go down with every use; `reset_at` is where in a file.

    `refuse`: (status, X-Error-Code) for all requests. `busy`, `broken`: as many requests are
    answered 429 and 503, only those whose path contains `only`. `lie`: file → the bytes really
    sent; `changed`: file → what it is since the listing was made. `short`: file → as many bytes,
    with a Content-Length to match; `claims`: file → a Content-Length that is not true. `ranges`
    False: Range is ignored; `range_shift`: it begins so many bytes later than asked. `stall_at`:
    send no more from there on until `resume` is set; `stalled` tells that it is so.
    `elsewhere`: everything is answered by a redirect to another host name. `xet`: offer
    big files by Xet; `xet_broken`: from a storage that has none of them.
    `any_revision`: whatever is asked for is taken for `main`.
    """

    refuse: tuple[int, str] | None = None
    busy: int = 0
    retry_after_s: int = 0
    broken: int = 0
    only: str = ""
    reset_at: int | None = None
    resets: int = 0
    seconds_per_piece: float = 0.0
    lie: dict[str, bytes] = field(default_factory=dict)
    changed: dict[str, bytes] = field(default_factory=dict)
    lying_etag: str | None = None
    short: dict[str, int] = field(default_factory=dict)
    claims: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    range_shift: int = 0
    stall_at: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)
    info: bytes | None = None
    elsewhere: bool = False
    xet: bool = False
    xet_broken: bool = False
    any_revision: bool = False

    @property
    def in_a_body(self) -> bool:
        """Whether the bytes of a file must be sent piece by piece, to go wrong somewhere."""
        return bool(self.resets or self.seconds_per_piece) or self.stall_at is not None


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]


class FakeHub:
    """The server on a thread of its own, while the `with` lasts. Files of `big_bytes` are LFS."""

    def __init__(
        self,
        repos: Mapping[str, Mapping[str, Content]],
        big_bytes: int = 1024,
        token: str | None = None,
    ) -> None:
        # Any: tests compare and cut what they know to be bytes.
        self.repos: dict[str, dict[str, Any]] = {name: dict(of) for name, of in repos.items()}
        self.big_bytes, self.token = big_bytes, token
        self.faults = Faults()
        self.requests: list[Request] = []
        self.sent_bytes = 0
        self._server = _Server(self)
        port = self._server.server_address[1]
        self.endpoint, self.cdn = f"http://127.0.0.1:{port}", f"http://localhost:{port}"

    def commit(self, repo: str) -> str:
        """The commit of `main`: it changes with any file."""
        listing = [(name, git_id(data)) for name, data in sorted(self.repos[repo].items())]
        return hashlib.sha1(f"{repo} {listing}".encode()).hexdigest()

    def asked_for(self, method: str, part: str) -> list[Request]:
        """The requests whose path contains `part`."""
        return [one for one in self.requests if one.method == method and part in one.path]

    def __enter__(self) -> "FakeHub":
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

    def serve(self) -> None:
        """Serve until killed."""
        self._server.serve_forever()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients of a faulty server hang up; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        """Nobody has anything to post to us; that somebody did is recorded."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.hub.requests.append(Request("POST", self.path, dict(self.headers.items())))
        self._send(202, {})

    def do_GET(self) -> None:
        hub, faults = self.server.hub, self.server.hub.faults
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(Request(self.command, path, dict(self.headers.items())))
        if self._is_refused():
            return
        if match := _INFO.fullmatch(path):
            self._info(match["repo"], match["revision"])
        elif match := _TREE.fullmatch(path):
            self._tree(match["repo"], match["revision"])
        elif "/xet-read-token/" in path:
            answer = {"accessToken": "xet", "exp": int(time.time()) + 3600, "casUrl": hub.cdn}
            self._send(200, {}, json.dumps(answer).encode())
        elif match := _XET.fullmatch(path):
            self._xet(match["what"], match["sha256"])
        elif match := _RESOLVE.fullmatch(path):
            self._resolve(match["repo"], match["revision"], match["file"])
        elif match := _CDN.fullmatch(path):
            name, data = self._blob(match["sha256"])
            self._send_file(name, faults.lie.get(name, data), {})
        else:
            self._send(404, {"X-Error-Code": "RepoNotFound"})

    def _is_refused(self) -> bool:
        hub, faults = self.server.hub, self.server.hub.faults
        is_hit = faults.only in self.path
        if faults.elsewhere and self.headers["Host"] in hub.endpoint:
            self._send(307, {"Location": f"{hub.cdn}{self.path}"})
        elif faults.busy > 0 and is_hit:
            faults.busy -= 1
            self._send(429, {"Retry-After": str(faults.retry_after_s)})
        elif faults.broken > 0 and is_hit:
            faults.broken -= 1
            self._send(503, {})
        elif faults.refuse is not None:
            self._send(faults.refuse[0], {"X-Error-Code": faults.refuse[1]})
        elif (
            hub.token is not None
            and not any(part in self.path for part in ("/cdn/", "/reconstructions/", "/xorb/"))
            and self.headers["Authorization"] != f"Bearer {hub.token}"
        ):
            self._send(401, {"X-Error-Code": "GatedRepo"})
        else:
            return False
        return True

    def _info(self, repo: str, revision: str) -> None:
        hub = self.server.hub
        if not self._is_known(repo, revision):
            return
        body = {
            "id": repo,
            "sha": hub.commit(repo),
            "siblings": [self._sibling(name, data) for name, data in hub.repos[repo].items()],
        }
        self._send(200, {}, hub.faults.info or json.dumps(body).encode())

    def _tree(self, repo: str, revision: str) -> None:
        if not self._is_known(repo, revision):
            return
        rows = [self._sibling(name, data) for name, data in self.server.hub.repos[repo].items()]
        for row in rows:
            row |= {"type": "file", "path": row["rfilename"], "oid": row["blobId"]}
            if isinstance(lfs := row.get("lfs"), dict):
                lfs["oid"] = lfs["sha256"]
        self._send(200, {}, json.dumps(rows).encode())

    def _is_known(self, repo: str, revision: str) -> bool:
        hub = self.server.hub
        if repo not in hub.repos:
            self._send(404, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", hub.commit(repo)) and not hub.faults.any_revision:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return True
        return False

    def _sibling(self, name: str, data: Content) -> dict[str, object]:
        size = size_of(data)
        row: dict[str, object] = {"rfilename": name, "size": size, "blobId": git_id(data)}
        if size >= self.server.hub.big_bytes:
            row["lfs"] = {"sha256": sha256(data), "size": size, "pointerSize": 135}
        return row

    def _blob(self, wanted: str) -> tuple[str, Content]:
        hub = self.server.hub
        folders = [*hub.repos.values(), hub.faults.changed]
        files = [(name, data) for files in folders for name, data in files.items()]
        big = [(name, data) for name, data in files if size_of(data) >= hub.big_bytes]
        return next((name, data) for name, data in big if sha256(data) == wanted)

    def _resolve(self, repo: str, revision: str, file: str) -> None:
        hub = self.server.hub
        if not self._is_known(repo, revision):
            return
        if file not in hub.repos[repo]:
            self._send(404, {"X-Error-Code": "EntryNotFound"})
            return
        data = hub.faults.changed.get(file, hub.repos[repo][file])
        headers = {"X-Repo-Commit": hub.commit(repo)}
        if size_of(data) >= hub.big_bytes:
            headers["X-Linked-Etag"] = f'"{hub.faults.lying_etag or sha256(data)}"'
            headers["X-Linked-Size"] = str(size_of(data))
            headers["Location"] = f"{hub.cdn}/cdn/{sha256(data)}"
            if hub.faults.xet:
                route = f"{hub.endpoint}/api/models/{repo}/xet-read-token/{revision}"
                headers |= {"X-Xet-Hash": sha256(data), "X-Xet-Refresh-Route": route}
            self._send(302, headers)
        else:
            headers["ETag"] = f'"{hub.faults.lying_etag or git_id(data)}"'
            self._send_file(file, hub.faults.lie.get(file, data), headers)

    def _xet(self, what: str, wanted: str) -> None:
        hub = self.server.hub
        if hub.faults.xet_broken or what.startswith("v2"):
            self._send(404, {})
            return
        name, data = self._blob(wanted)
        assert isinstance(data, bytes)
        data = hub.faults.lie.get(name, data)
        if what == "xorb":
            self._send_part(fake_xet.xorb(data))
        else:
            url = f"{hub.cdn}/xorb/{wanted}"
            status, body = fake_xet.reconstruction(data, wanted, url, self.headers.get("Range", ""))
            self._send(status, {"Content-Type": "application/json"}, body)

    def _send_part(self, body: bytes) -> None:
        begin, end = self.headers["Range"].removeprefix("bytes=").split("-")
        headers = {"Content-Range": f"bytes {begin}-{end}/{len(body)}"}
        part = body[int(begin) : int(end) + 1]
        self._send_head(206, headers, len(part))
        self._send_body(part, int(begin))

    def _send_file(self, name: str, data: Content, headers: dict[str, str]) -> None:
        faults, begin, size = self.server.hub.faults, 0, size_of(data)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        last = size - 1
        if wanted and faults.ranges:
            begin = int(wanted[1]) + faults.range_shift
            last = min(last, int(wanted[2] or last))
            headers["Content-Range"] = f"bytes {begin}-{last}/{size}"
        headers["Accept-Ranges"] = "bytes"
        end = max(begin, min(last + 1, faults.short.get(name, size)))
        length = faults.claims.get(name, end - begin)
        self._send_head(206 if "Content-Range" in headers else 200, headers, length)
        if self.command == "HEAD":
            return
        if length != end - begin:
            self.close_connection = True
        if isinstance(data, Path) and not faults.in_a_body:
            self._send_by_kernel(data, begin, end)
        else:
            whole = data.read_bytes() if isinstance(data, Path) else data
            self._send_body(whole[begin:end], begin)

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self._send_head(status, headers, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_head(self, status: int, headers: Mapping[str, str], length: int) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send_by_kernel(self, file: Path, begin: int, end: int) -> None:
        with file.open("rb") as source:
            while begin < end:
                sent = os.sendfile(self.connection.fileno(), source.fileno(), begin, end - begin)
                begin += sent
                self.server.hub.sent_bytes += sent

    def _send_body(self, body: bytes, begin: int) -> None:
        if self.server.hub.faults.in_a_body and len(body) > _PIECE_BYTES:
            self._send_slowly(body, begin)
        else:
            self.wfile.write(body)
            self.server.hub.sent_bytes += len(body)

    def _send_slowly(self, body: bytes, begin: int) -> None:
        hub, faults = self.server.hub, self.server.hub.faults
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
            hub.sent_bytes += len(piece)
            if faults.seconds_per_piece:
                time.sleep(faults.seconds_per_piece)

    def _reset(self) -> None:
        """Close with RST, as a dying machine or a strict firewall does."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def _main(arguments: list[str]) -> None:
    repos: dict[str, dict[str, Content]] = {}
    for argument in arguments:
        repo, _, folder = argument.partition("=")
        root = Path(folder)
        files = (path for path in root.rglob("*") if path.is_file())
        repos[repo] = {path.relative_to(root).as_posix(): path for path in files}
    hub = FakeHub(repos)
    for files_of in repos.values():
        for path in files_of.values():  # now, not at the first request
            sha256(path)
            git_id(path)
    print(hub.endpoint, flush=True)
    hub.serve()


if __name__ == "__main__":
    _main(sys.argv[1:])
