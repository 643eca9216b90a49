"""The mirror's life: listen, a thread per connection, drain, leave."""

import logging
import selectors
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

from serve.log import fields
from serve.mirror.connection import Connection
from serve.mirror.desk import Desk
from serve.mirror.metrics import Metrics
from serve.mirror.reading import Patience
from serve.mirror.sending import Sender
from serve.mirror.stock import Stock

_log = logging.getLogger(__name__)
_MOST_CONNECTIONS = 512
_PAUSE_S = 0.1  # when the process has no descriptors left
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 2\r\n"
    b"Content-Length: 0\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a mirror gives. `key`: what clients must send, None: nothing. `rate`: most
    bytes per second to all of them together. `drain_s`: how long a stop waits for transfers."""

    key: str | None = field(default=None, repr=False)
    rate: int | None = None
    drain_s: float = 30.0
    most_connections: int = _MOST_CONNECTIONS
    patience: Patience = Patience()


class Mirror:
    """Serves a stock over a listening socket, which it closes."""

    def __init__(self, stock: Stock, listener: socket.socket, terms: Terms) -> None:
        self._listener, self._terms = listener, terms
        self._metrics = Metrics()
        self._desk = Desk(stock, self._metrics, terms.key)
        self._asked, self._ended = 0, threading.Event()
        self._sender = Sender(self._metrics, self._ended, terms.rate, terms.patience.stall_s)
        self._open: dict[Connection, threading.Thread] = {}
        self._changed = threading.Condition()
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)

    def serve(self) -> bool:
        """Serve until `stop`, then let transfers finish; whether all of them did."""
        try:
            with self._listener:
                self._accept()
            return self._drain()
        finally:
            self._end_all()
            self._woken.close()
            self._wake.close()

    def stop(self) -> None:
        """Refuse new connections and finish what runs; asked again: end now. From any thread, or
        from a signal's handler, which is why nothing here waits for a lock."""
        self._asked += 1
        with suppress(OSError):  # it has ended already, or been asked very often
            self._wake.send(b"!")

    def _is_stopping(self) -> bool:
        return self._asked > 0

    def _accept(self) -> None:
        self._listener.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._is_stopping():
                selector.select()
                self._accept_one()

    def _accept_one(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            _log.warning("cannot accept a connection: %s", fields(reason=error.strerror))
            time.sleep(_PAUSE_S)
            return
        sock.setblocking(True)
        if not self._has_room():
            self._turn_away(sock)
            return
        made = Connection(
            sock, self._desk, self._sender, self._metrics, self._is_stopping, self._terms.patience
        )
        thread = threading.Thread(target=self._run, args=(made,), daemon=True)
        self._note(made, thread)
        try:
            thread.start()
        except RuntimeError as error:  # the system gives us no more threads
            _log.warning("cannot serve a connection: %s", fields(reason=error))
            self._note(made, None)
            self._turn_away(sock)

    def _run(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            self._note(connection, None)

    def _note(self, connection: Connection, thread: threading.Thread | None) -> None:
        """Write down who serves the connection; None: nobody any more."""
        with self._changed:
            if thread is None:
                del self._open[connection]
            else:
                self._open[connection] = thread
            self._metrics.connections.set(len(self._open))
            self._changed.notify_all()

    def _has_room(self) -> bool:
        """Whether one more may come; if need be, the one that has idled longest must go."""
        with self._changed:
            if len(self._open) < self._terms.most_connections:
                return True
            idle = [one for one in self._open if not one.is_busy]
            if idle:
                min(idle, key=lambda one: one.since).end()
            return self._changed.wait_for(
                lambda: len(self._open) < self._terms.most_connections, _PAUSE_S if idle else 0
            )

    def _turn_away(self, sock: socket.socket) -> None:
        self._metrics.count("other", HTTPStatus.SERVICE_UNAVAILABLE)
        with sock:
            try:
                sock.settimeout(_PAUSE_S)
                sock.sendall(_FULL)
            except OSError:
                pass  # it did not wait for an answer

    def _drain(self) -> bool:
        """Wait for transfers, at most `drain_s`; whether none was cut."""
        until = time.monotonic() + self._terms.drain_s
        with self._changed:
            while self._open and self._asked < 2 and time.monotonic() < until:
                for connection in self._open:
                    if not connection.is_busy:
                        connection.end()
                # A signal's handler cannot notify; it is seen at the next turn.
                self._changed.wait(_PAUSE_S)
            return not self._open

    def _end_all(self) -> None:
        self._ended.set()
        with self._changed:
            for connection in self._open:
                connection.end()
            self._changed.wait_for(lambda: not self._open, timeout=2.0)
