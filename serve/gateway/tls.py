"""TLS: the certificate, whose clients are let in, and both read anew when their files change."""

import asyncio
import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Protocol

from serve.errors import SettingsError

_logger = logging.getLogger(__name__)
_LOOK_EVERY_S = 5.0
_Stamp = tuple[tuple[int, int, int], ...]


class Files(Protocol):
    """The settings that say where certificates lie (PEM); see `server.tls_*`."""

    @property
    def tls_cert(self) -> Path | None: ...
    @property
    def tls_key(self) -> Path | None: ...
    @property
    def tls_client_ca(self) -> Path | None: ...


class Certificates:
    """What a listener shows, and asks of who comes. SettingsError if a file cannot be used.

    `context` stays the same as long as the process lives; each connection takes the newest files
    that could be used.
    """

    def __init__(self, files: Files, cert: Path) -> None:
        self._files = files
        self._cert = cert
        self._stamp = _stamp(files)
        self._newest = _context(files, cert)
        self.context = _context(files, cert)
        self.context.sni_callback = self._take_newest

    def refresh(self) -> bool:
        """Read the files again if they have changed; whether there is something new to show."""
        stamp = _stamp(self._files)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._newest = _context(self._files, self._cert)
        except SettingsError as error:
            _logger.warning("the old certificate stays in use: %s: %s", error.key, error.problem)
            return False
        _logger.info("a new certificate is in use: %s", self._cert)
        return True

    async def keep_fresh(self, every_s: float = _LOOK_EVERY_S) -> NoReturn:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.refresh()

    def _take_newest(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext
    ) -> None:
        # OpenSSL asks this at the begin of each handshake, also where a client names no host.
        connection.context = self._newest


def certificates(files: Files) -> Certificates | None:
    """What the settings ask for; None if that is plain HTTP."""
    if files.tls_cert is not None:
        return Certificates(files, files.tls_cert)
    for name in ("tls_key", "tls_client_ca"):
        if getattr(files, name) is not None:
            raise SettingsError("setting", f"server.{name}", "needs server.tls_cert beside it")
    return None


def _context(files: Files, cert: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    with _usable("tls_cert", cert):
        cert.read_bytes()
    with _usable("tls_key", files.tls_key or cert):
        # Without a password of ours OpenSSL would ask whoever sits at the terminal.
        context.load_cert_chain(cert, files.tls_key, password=b"")
    if files.tls_client_ca is not None:
        with _usable("tls_client_ca", files.tls_client_ca):
            context.load_verify_locations(cafile=files.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session would show no certificate, so one that counts no more would still do.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


@contextmanager
def _usable(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problem = f"{path} cannot be used: {reason}"
        raise SettingsError("setting", f"server.{name}", problem) from error


def _stamp(files: Files) -> _Stamp:
    """What changes when a file is written or replaced, also by way of a link to another folder."""
    named = (files.tls_cert, files.tls_key, files.tls_client_ca)
    return tuple(_stamp_of(path) for path in named if path is not None)


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
