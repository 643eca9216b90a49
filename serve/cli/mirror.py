"""`inhouse mirror`: the weights that are here, for other machines."""

import ipaddress
import os
import resource
import signal
import socket
from contextlib import suppress
from types import FrameType
from typing import Any

import typer

from serve.cli import output, rooms
from serve.cli.errors import INTERRUPTED
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.listening import listen, url
from serve.log import configure
from serve.mirror import Mirror, Repo, Stock, Terms
from serve.settings import Settings
from serve.units import show_bytes, show_seconds

_WILDCARDS = ("0.0.0.0", "::")
# Addresses for documentation, which nobody has: the way there is the way to the network.
_ELSEWHERE = {
    socket.AF_INET: ("192.0.2.1", 9),
    socket.AF_INET6: ("2001:db8::1", 9),
}


@with_settings("mirror", "server.drain", "paths.home", "hub.home", "log.level")
def mirror(settings: Settings, as_json: JsonFlag = False) -> None:
    """Give the weights that are here to other machines, in the Hub's own protocol.

    Read-only, until Ctrl-C. What is pulled or removed meanwhile appears or goes at once.
    """
    given = settings.mirror
    key = given.key.get_secret_value() if given.key else None
    stock = Stock(rooms.store(settings), given.repos)
    # Weights are no secret as a rule, so a key is offered beyond loopback, not demanded.
    with listen(given.host, given.port, has_key=True, verb="mirror") as listener:
        listener.set_inheritable(False)
        configure(settings.log.level, "mirror")
        _allow_many_connections()
        made = Mirror(stock, listener, Terms(key, given.rate, settings.server.drain))
        stop = _Stop(made, settings.server.drain)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stop)
        _tell(stock, listener, settings, as_json)
        if not made.serve():
            output.say("transfers were cut; their clients can continue them elsewhere or later")
            raise typer.Exit(INTERRUPTED)


class _Stop:
    """The handler of signals: the first drains, the second ends."""

    def __init__(self, made: Mirror, drain_s: float) -> None:
        self._made, self._drain_s = made, drain_s
        self._is_asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._made.stop()
        if not self._is_asked:
            self._is_asked = True
            wait = show_seconds(self._drain_s)
            words = f"stopping; transfers have {wait}, Ctrl-C again ends them now\n"
            with suppress(OSError):  # the terminal may be what is gone
                os.write(2, words.encode())


def _tell(stock: Stock, listener: socket.socket, settings: Settings, as_json: bool) -> None:
    """What is given, and the line for other machines."""
    repos, endpoint = stock.repos(), _endpoint(listener)
    has_key = settings.mirror.key is not None
    rows = [row for repo in repos.values() for row in _rows(repo)]
    if as_json:
        output.put_json(
            {"pid": os.getpid(), "address": url(listener), "endpoint": endpoint,
             "has_key": has_key, "rate": settings.mirror.rate, "revisions": rows}
        )  # fmt: skip
        return
    output.put_table(
        ("REPOSITORY", "SIZE", "COMMIT", "BRANCHES"),
        [(r["repo"], show_bytes(r["bytes"]), r["commit"][:12], " ".join(r["names"])) for r in rows],
    )
    if not rows:
        output.say("nothing to give yet; what is pulled appears here: inhouse pull MODEL")
    token = "HF_TOKEN=KEY " if has_key else ""
    is_local = _is_loopback(listener)
    where = "on this machine alone; for others: --host 0.0.0.0" if is_local else "on other machines"
    output.say(f"\n{where}:\n", "bold")
    output.say(f"  HF_ENDPOINT={endpoint} {token}inhouse pull MODEL\n")
    if not has_key and not is_local:
        output.say("no key is set: whoever reaches this port may read these weights, and no more")
    output.say(f"pid {os.getpid()}; Ctrl-C ends it", "dim")


def _rows(repo: Repo) -> list[dict[str, Any]]:
    return [
        {
            "repo": repo.name,
            "commit": commit,
            "names": sorted(name for name, one in repo.branches.items() if one == commit),
            "bytes": sum(file.size for file in revision.files.values()),
        }
        for commit, revision in repo.revisions.items()
    ]


def _endpoint(listener: socket.socket) -> str:
    """How other machines reach us: our address towards the network when we listen on all."""
    address, port = listener.getsockname()[:2]
    if address not in _WILDCARDS:
        return url(listener)
    with socket.socket(listener.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE[listener.family])  # sends nothing: a datagram socket
            address = probe.getsockname()[0]
        except OSError:
            return url(listener)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _allow_many_connections() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
