"""Runs in an empty network namespace: imports a bundle, serves what was in it, asks, and tells.

    unshare -n python -m tests.engine.airlock HOME RUN BUNDLE…

Prints one JSON object: the interfaces there are, whether anything beyond was reachable, what the
import said, and the answer.
"""

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

from tests.engine.stack import Stack, running

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
# One word more than usual: the bare question is a near tie, which bf16 rounds either way.
QUESTION = "What is the capital of France? Answer with one word."


def loopback_up() -> None:
    """A server listens on 127.0.0.1; that is all the network there is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14s", b"lo", _IFF_UP, b"")
        fcntl.ioctl(any_socket.fileno(), _SIOCSIFFLAGS, request)


def reached() -> list[str]:
    """Which addresses beyond this machine can be connected to: documentation's and a resolver's."""
    found = []
    for address in ("192.0.2.1", "9.9.9.9"):
        with socket.socket() as one:
            one.settimeout(2)
            if one.connect_ex((address, 443)) == 0:
                found.append(address)
    return found


def main(home: str, run: str, *bundle: str) -> None:
    loopback_up()
    environment = os.environ | {"INHOUSE_HOME": home, "INHOUSE_RUN": run}
    imported = subprocess.run(
        [sys.executable, "-m", "serve", "bundle", "import", *bundle, "--json"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    told = {
        "interfaces": [name for _, name in socket.if_nameindex()],
        "reached": reached(),
        "imported": json.loads(imported.stdout) if imported.returncode == 0 else imported.stderr,
    }
    if imported.returncode == 0:
        with running(Stack(Path(home), Path(run), "--spares", "0")) as stack:
            answer = stack.ask(QUESTION).json()
            told |= {"answer": answer["choices"][0]["message"]["content"]}
            told |= {"isolation": stack.model().isolation}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
