"""`escape.py PID [WAY…]`: join the namespaces of PID from outside and try every way out of them.

Run by tests and by hand as the owner of the engine or root. Prints one JSON object: way →
"open" (a way out!) or the reason why not. Exit code 1 when any way is open.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
CAPABILITY_VERSION_3 = 0x20080522
SIOCGIFFLAGS, IFF_UP = 0x8913, 1
NETLINK_ROUTE, RTM_NEWADDR, IFA_LOCAL, NLM_CREATE_AND_ACK = 0, 20, 2, 0x0605
# Addresses for documentation (RFC 5737, RFC 3849), where nobody is: what counts is the way out.
ADDRESSES = {
    "tcp4": (socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 80)),
    "tcp4 tls": (socket.AF_INET, socket.SOCK_STREAM, ("198.51.100.1", 443)),
    "tcp4 hub": (socket.AF_INET, socket.SOCK_STREAM, ("203.0.113.1", 443)),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", 443)),
    "tcp6 tls": (socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8:1::1", 443)),
    "udp4": (socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53)),
    "udp4 quic": (socket.AF_INET, socket.SOCK_DGRAM, ("198.51.100.1", 443)),
    "udp4 broadcast": (socket.AF_INET, socket.SOCK_DGRAM, ("255.255.255.255", 67)),
    "udp4 multicast": (socket.AF_INET, socket.SOCK_DGRAM, ("224.0.0.251", 5353)),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM, ("2001:db8::1", 53)),
}
TIMEOUT_S = 2.0


def main(pid: str, wanted: list[str]) -> int:
    """Join, drop what an engine does not have, try everything (or what is wanted)."""
    own = Path("/proc/self/ns/net").readlink()
    join(pid)
    if not wanted and Path("/proc/self/ns/net").readlink() == own:
        print(json.dumps({"namespace": "open"}))  # nothing to escape from: send nothing
        return 1
    ways: dict[str, Callable[[], None]] = {
        name: lambda where=where: reach(*where)  # type: ignore[misc]
        for name, where in ADDRESSES.items()
    }
    ways |= {"dns": resolve, "interface": other_interface, "route": default_route}
    ways |= {
        "abstract socket": abstract_socket,
        "raw": raw,
        "packet": packet,
        "netlink": add_address,
    }
    drop_capabilities()
    found = {name: attempt(way) for name, way in ways.items() if not wanted or name in wanted}
    print(json.dumps(found))
    return 1 if "open" in found.values() else 0


def attempt(way: Callable[[], None]) -> str:
    try:
        way()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "open"


def join(pid: str) -> None:
    """Enter the user namespace first: it owns the right to enter the others."""
    libc = ctypes.CDLL(None, use_errno=True)
    for name, kind in (("user", CLONE_NEWUSER), ("net", CLONE_NEWNET)):
        theirs = Path(f"/proc/{pid}/ns/{name}")
        if theirs.readlink() != Path(f"/proc/self/ns/{name}").readlink():
            with theirs.open() as handle:
                if libc.setns(handle.fileno(), kind) != 0:
                    raise OSError(ctypes.get_errno(), f"cannot join {theirs}")


def reach(family: int, kind: int, address: tuple[str, int]) -> None:
    """A datagram that leaves counts as a way out, even if nobody answers."""
    with socket.socket(family, kind) as handle:
        handle.settimeout(TIMEOUT_S)
        with contextlib.suppress(OSError):
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if kind == socket.SOCK_STREAM:
            try:
                handle.connect(address)
            except (TimeoutError, ConnectionRefusedError):
                return  # the packet had a way
        else:
            handle.sendto(b"canary", address)


def resolve() -> None:
    socket.getaddrinfo("example.com", 443)


def other_interface() -> None:
    # Kernels put tunnel stubs (sit0, ip6tnl0) into every new namespace; they are down.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for _, name in socket.if_nameindex():
            answer = fcntl.ioctl(handle, SIOCGIFFLAGS, struct.pack("16s16x", name.encode()))
            if name != "lo" and struct.unpack_from("H", answer, 16)[0] & IFF_UP:
                return
    raise OSError(errno.ENODEV, "only lo")


def default_route() -> None:
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    if not any(line.split()[1] == "00000000" for line in routes):
        raise OSError(errno.ENETUNREACH, "no default route")


def abstract_socket() -> None:
    """Abstract unix sockets belong to the network namespace: ours must see none from outside."""
    names = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()]
    foreign = [name for name in names if name.startswith("@")]
    if not foreign:
        raise OSError(errno.ECONNREFUSED, "none to be seen")


def raw() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as handle:
        handle.sendto(b"\x08\0\0\0canary", ("192.0.2.1", 0))


def packet() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


def add_address() -> None:
    """Ask the kernel (RTM_NEWADDR) for 192.0.2.9/24 on the first interface."""
    address = struct.pack("=BBBBi", socket.AF_INET, 24, 0, 0, 1)
    address += struct.pack("=HH4s", 8, IFA_LOCAL, socket.inet_aton("192.0.2.9"))
    head = struct.pack("=IHHII", 16 + len(address), RTM_NEWADDR, NLM_CREATE_AND_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as handle:
        handle.send(head + address)
        code = -struct.unpack_from("=i", handle.recv(4096), 16)[0]
    if code:
        raise OSError(code, os.strerror(code))


def drop_capabilities() -> None:
    """We joined with every right inside; an engine has none of them."""
    head = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    if ctypes.CDLL(None, use_errno=True).capset(head, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
