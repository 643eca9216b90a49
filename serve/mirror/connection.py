"""One connection: its requests are answered in order, by a thread of its own."""

import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from serve.errors import WeightsDamaged
from serve.log import fields
from serve.mirror.desk import Desk
from serve.mirror.metrics import Metrics
from serve.mirror.reading import Patience, Reader, Received, Refused
from serve.mirror.reply import Part, Reply, refusal
from serve.mirror.route import Name
from serve.mirror.sending import Broken, Sender
from serve.mirror.stock import opened

_log = logging.getLogger(__name__)


class Connection:
    """`is_busy`: answers a request now. `since`: when that began or ended, by the steady clock.

    `is_closing` tells whether the server is about to stop, after which no request is waited for.
    """

    def __init__(
        self, sock: socket.socket, desk: Desk, sender: Sender, metrics: Metrics,
        is_closing: Callable[[], bool], patience: Patience,
    ) -> None:  # fmt: skip
        self._sock, self._desk, self._sender, self._metrics = sock, desk, sender, metrics
        self._is_closing, self._patience = is_closing, patience
        self.is_busy, self.since = False, time.monotonic()

    def run(self) -> None:
        """Answer until either side has enough, then close."""
        with self._sock:
            try:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._serve()
            except Refused as error:
                self._refuse(error)
            except Broken as error:
                _log.warning("a transfer was ended: %s", fields(reason=error, to=self._peer()))
            except OSError:
                pass  # the client is gone; it asks again for what it lacks

    def end(self) -> None:
        """Break the connection, from another thread."""
        with suppress(OSError):  # it may have ended by itself
            self._sock.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        reader = Reader(self._sock, self._patience)
        is_last = False
        while not (is_last or self._is_closing()) and (received := reader.next()):
            self._mark(True)
            is_last = self._answer(received)
            self._mark(False)
        self._linger()

    def _answer(self, received: Received) -> bool:
        """Send the reply; whether the connection is done with it."""
        asked, reply = self._desk.answer(received.request)
        is_last = received.is_last or self._is_closing()
        with_body = received.request.method != "HEAD"
        try:
            self._send(reply, asked.name, not is_last, with_body)
        except WeightsDamaged:
            self._send(self._desk.damaged(), asked.name, not is_last, with_body)
        return is_last

    def _send(self, reply: Reply, route: Name, is_kept: bool, with_body: bool) -> None:
        part = reply.part
        fd = opened(part.file) if part else None
        try:
            self._metrics.count(route, reply.status)
            self._sender.send(self._sock, reply, is_kept, with_body)
            if part and fd is not None and with_body:
                began = time.monotonic()
                self._sender.send_part(self._sock, part, fd)
                self._tell(part, time.monotonic() - began)
        finally:
            if fd is not None:
                os.close(fd)

    def _refuse(self, error: Refused) -> None:
        reply = refusal(error.status, error.status.phrase)
        self._metrics.count("other", reply.status)
        try:
            self._sender.send(self._sock, reply, is_kept=False, with_body=True)
            self._linger()
        except OSError:
            pass  # nobody listens any more

    def _linger(self) -> None:
        """Say that no more comes. Closing with unread bytes would make the kernel drop our last."""
        self._sock.shutdown(socket.SHUT_WR)
        self._sock.settimeout(1.0)
        for _ in range(16):
            if not self._sock.recv(64 * 1024):
                return

    def _mark(self, is_busy: bool) -> None:
        self.is_busy, self.since = is_busy, time.monotonic()

    def _tell(self, part: Part, took_s: float) -> None:
        facts = fields(
            repo=part.file.repo, file=part.file.path, bytes=part.end - part.begin,
            seconds=f"{took_s:.3f}", to=self._peer(),
        )  # fmt: skip
        _log.info("sent: %s", facts)

    def _peer(self) -> str:
        try:
            return str(self._sock.getpeername()[0])
        except OSError:
            return "gone"
