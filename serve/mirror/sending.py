"""Replies onto the wire: the kernel moves files to sockets, and no byte of them enters Python.

Each connection has a thread, which may wait for the disk and for its client without holding up
others; a hundred slow clients hold a hundred sleeping threads and no buffers.
"""

import os
import select
import socket
import threading
from email.utils import formatdate

from serve.mirror.metrics import Metrics
from serve.mirror.rate import Bucket
from serve.mirror.reply import Part, Reply, head
from serve.mirror.stock import is_unchanged

_PIECE_BYTES = 4 * 2**20


class Broken(Exception):
    """The reply cannot be finished; the connection must end so that the client sees it."""


class Sender:
    """Sends replies for all connections. `ended`: set when all must end at once. `stall_s`: how
    long a client may take nothing."""

    def __init__(
        self, metrics: Metrics, ended: threading.Event, rate: int | None, stall_s: float
    ) -> None:
        self._metrics, self._ended, self._stall_s = metrics, ended, stall_s
        self._bucket = Bucket(rate) if rate else None
        self._piece_bytes = self._bucket.piece_bytes if self._bucket else _PIECE_BYTES

    def send(self, sock: socket.socket, reply: Reply, is_kept: bool, with_body: bool) -> None:
        """The head, and the body that is in memory. OSError when the connection breaks."""
        sock.settimeout(self._stall_s)
        first = head(reply, formatdate(usegmt=True), is_kept)
        if with_body and reply.part is not None:
            sock.sendall(first, socket.MSG_MORE)  # the file's bytes fill up the packet
        else:
            sock.sendall(first + (reply.body if with_body else b""))

    def send_part(self, sock: socket.socket, part: Part, fd: int) -> None:
        """The bytes of an open file. Broken if they are not all there, or not as verified: the
        last byte waits for that check, so nobody takes what was sent for the whole."""
        ready = select.poll()
        ready.register(sock.fileno(), select.POLLOUT)
        os.posix_fadvise(fd, part.begin, part.end - part.begin, os.POSIX_FADV_SEQUENTIAL)
        with self._metrics.transfers.track_inprogress():
            begin, last = part.begin, part.end - 1
            while begin < part.end:
                end = min(begin + self._piece_bytes, last) if begin < last else part.end
                if begin == last and not is_unchanged(part.file, fd):
                    raise Broken("the file was changed")
                self._wait_for_turn(end - begin)
                self._send_piece(sock.fileno(), fd, begin, end, ready)
                self._metrics.sent(part.file.repo, end - begin)
                begin = end

    def _wait_for_turn(self, count: int) -> None:
        if self._bucket and self._ended.wait(self._bucket.reserve(count)):
            raise Broken("the mirror ends")

    def _send_piece(self, sock_fd: int, fd: int, begin: int, end: int, ready: select.poll) -> None:
        while begin < end:
            try:
                sent = os.sendfile(sock_fd, fd, begin, end - begin)
            except BlockingIOError:
                if not ready.poll(self._stall_s * 1000):
                    raise Broken("the client has stopped reading") from None
                continue
            except ConnectionError:
                raise  # the client is gone
            except OSError as error:
                raise Broken(f"the file cannot be read: {error.strerror}") from error
            if sent == 0:
                raise Broken("the file is shorter than it was")
            begin += sent
