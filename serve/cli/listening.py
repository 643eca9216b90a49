"""The listening socket: bound first of all, by the supervisor, and inherited by the gateways."""

import errno
import ipaddress
import socket

from serve.errors import OpenDoor, PortTaken, SettingsError

_BACKLOG = 2048
_GROUPS = {"serve": "server", "mirror": "mirror"}  # verb → where its settings stand
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def listen(host: str, port: int, has_key: bool, verb: str = "serve") -> socket.socket:
    """Bind and listen for a verb; the descriptor may be inherited.

    Raises OpenDoor for an address beyond loopback without a key, PortTaken, and SettingsError
    for a host that is none of this machine.
    """
    family, address = _resolve(host, port, verb)
    if not has_key and not ipaddress.ip_address(address).is_loopback:
        raise OpenDoor(host)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # No SO_REUSEPORT: somebody else's server on the same port must be noticed.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(host, port, verb) from error
        name, value = ("port", port) if error.errno == errno.EACCES else ("host", host)
        problem = f"{error.strerror}: {value}"
        raise SettingsError(verb, f"{_GROUPS[verb]}.{name}", problem) from error
    listener.setblocking(False)
    listener.set_inheritable(True)
    return listener


def url(listener: socket.socket, is_tls: bool = False) -> str:
    """How the socket is reached from this machine: `http://127.0.0.1:8000`."""
    address, port = listener.getsockname()[:2]
    address = _WILDCARDS.get(address, address)
    scheme = "https" if is_tls else "http"
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def _resolve(host: str, port: int, verb: str) -> tuple[socket.AddressFamily, str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        key = f"{_GROUPS[verb]}.host"
        raise SettingsError(verb, key, f"{error.strerror}: {host}") from error
    family, _, _, _, address = found[0]
    return family, str(address[0])
