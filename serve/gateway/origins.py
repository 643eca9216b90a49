"""Where a request comes from: the client behind proxies, and the page behind a browser. Pure."""

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache

from serve.errors import SettingsError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# How containers on this machine call it; no page of the web can have such a host.
_OURS = frozenset(("localhost", "host.docker.internal", "host.containers.internal"))
# Desktop programs that are made of pages; no page of the web can have such an origin.
_DESKTOP = (b"app://", b"tauri://", b"vscode-file://", b"vscode-webview://")
_HOST = re.compile(rb"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+)(?::[0-9]{1,5})?")
_LONGEST_NAME = 300  # bytes
_MOST_HOPS = 32
_REMEMBERED = 1024
UNIX = "unix"  # stands for peers that come over a unix socket


def parse_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """`server.trusted_proxies` as networks; SettingsError names what is none."""
    networks = []
    for text in texts:
        if text == UNIX:
            continue
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise SettingsError("setting", "server.trusted_proxies", str(error)) from None
    return tuple(networks)


class Clients:
    """Who a request is from, as far as can be believed."""

    def __init__(self, trusted: tuple[str, ...]) -> None:
        self._networks = parse_networks(trusted)
        self._is_unix_trusted = UNIX in trusted
        self._is_anybody_trusted = bool(trusted)
        # Proxies are few; what else comes is forgotten again.
        self._is_trusted: Callable[[str], bool] = lru_cache(_REMEMBERED)(self._look)

    def address(self, headers: dict[bytes, bytes], peer: str) -> str:
        """The client's address: the other end of the connection, or, if that is a proxy which is
        trusted, the rightmost one of X-Forwarded-For that is not."""
        if not self._is_anybody_trusted or not self._is_trusted(peer):
            return peer
        forwarded = headers.get(b"x-forwarded-for")
        if forwarded is None:
            return peer
        nearest = peer
        for entry in reversed(forwarded.decode("latin-1").rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]):
            address = _parse(entry.strip())
            if address is None:
                break  # whoever wrote this is not believed any further
            nearest = str(address)
            if not self._is_trusted(nearest):
                break
        return nearest

    def _look(self, peer: str) -> bool:
        if not peer:
            return self._is_unix_trusted
        address = _parse(peer)
        return address is not None and any(address in network for network in self._networks)


def is_from_a_foreign_page(headers: dict[bytes, bytes]) -> bool:
    """Whether a browser may have sent this for a page that is not of this machine.

    A page whose name is made to point here (DNS rebinding) shows in Host, any other in Origin or
    Sec-Fetch-Site; what is no browser sends neither of these two.
    """
    host = headers.get(b"host")
    if host is not None and not _is_ours(host):
        return True
    origin = headers.get(b"origin")
    if origin is not None:
        return not _is_own_origin(origin)
    return headers.get(b"sec-fetch-site") == b"cross-site"


def _is_ours(host: bytes) -> bool:
    """Whether a `host` or `host:port` means this machine, whatever a name server says."""
    return len(host) <= _LONGEST_NAME and _is_our_name(host)


def _is_own_origin(origin: bytes) -> bool:
    if origin.startswith(_DESKTOP):
        return True
    scheme, _, host = origin.partition(b"://")
    return scheme in (b"http", b"https") and _is_ours(host)


@lru_cache(_REMEMBERED)
def _is_our_name(host: bytes) -> bool:
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].decode().casefold()
    if name in _OURS or name.endswith(".localhost"):
        return True
    address = _parse(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _parse(text: str) -> Address | None:
    """`1.2.3.4`, `1.2.3.4:5678`, `::1` or `[::1]:5678`; None if it is none of them."""
    if len(text) > _LONGEST_NAME:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
