"""What an engine is told of a request besides its body, and what is read from its headers."""

from functools import lru_cache

from serve.gateway.call import Call
from serve.gateway.exchange import Request, told_of
from serve.gateway.pool import host_of
from serve.quota import Priority
from serve.roster import Replica

_PRIORITIES: tuple[Priority, ...] = ("interactive", "default", "batch")
_RANKS = {name.encode(): rank for rank, name in enumerate(_PRIORITIES)}


def priority(request: Request) -> Priority:
    """The class that the client asks for (`x-inhouse-priority`), as far as its key goes."""
    key = request.caller.key
    if request.priority is None and b"x-inhouse-priority" not in request.headers:
        return "batch" if key is not None and key.priority == "batch" else "default"
    most = _PRIORITIES.index(key.priority) if key is not None else 0
    wanted = request.headers.get(b"x-inhouse-priority", b"default")
    if request.priority is not None:
        wanted = request.priority.encode()
    return _PRIORITIES[max(most, _RANKS.get(wanted, 1))]


def head(call: Call, replica: Replica) -> bytes:
    """What a replica gets before the body."""
    request = call.request
    told = request.told
    if told is None:
        told = told_of(request.headers)
    if call.trace is not None:
        told += b"traceparent: %b\r\n" % call.trace.header
    return b"%b%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n" % (
        _opening(request.path, replica.address, replica.key), told, len(call.body), request.id
    )  # fmt: skip


@lru_cache(1024)
def _opening(path: str, address: str, key: str) -> bytes:
    """What is the same in all requests of a route to a replica."""
    line = f"POST {path} HTTP/1.1\r\nhost: {host_of(address)}\r\n"
    return (line + f"authorization: Bearer {key}\r\n" if key else line).encode()
