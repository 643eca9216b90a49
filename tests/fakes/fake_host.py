"""A stand-in for `serve/inside/host.py`: speaks to the guard as it does, becomes the fake vLLM.

Knobs are flags: `--import-s 0.2` (how long it imports), `--die-importing N` (with exit code N),
`--die-compiled` (end when told to serve without `--enforce-eager`).
What it leaves in TMPDIR and VLLM_RPC_BASE_PATH is what vLLM leaves there. Standard library only.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import time
import uuid
from pathlib import Path

EVENTS_FD = 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--import-s", type=float, default=0.0)
    parser.add_argument("--die-importing", type=int)
    parser.add_argument("--die-compiled", action="store_true")
    knobs = parser.parse_args()
    time.sleep(knobs.import_s)
    if knobs.die_importing is not None:
        print("ImportError: the fake host was told to die", file=sys.stderr, flush=True)
        sys.exit(knobs.die_importing)
    os.write(EVENTS_FD, b'{"event": "imported", "version": "0.32.0"}\n')
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    order = json.loads(line)
    if knobs.die_compiled and "--enforce-eager" not in order["argv"]:
        sys.exit(1)
    os.environ.update(order["env"])
    os.close(EVENTS_FD)
    litter()
    fake_vllm = str(Path(__file__).with_name("fake_vllm.py"))
    os.execv(sys.executable, [sys.executable, fake_vllm, *order["argv"]])


def litter() -> None:
    """A rendezvous file, a folder with something in it, and a socket of ZeroMQ's."""
    if "VLLM_RPC_BASE_PATH" in os.environ:
        Path(tempfile.gettempdir(), f"vllm_dist_{uuid.uuid4().hex}").touch()
        Path(tempfile.mkdtemp(prefix="pymp-"), "listener").touch()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{os.environ['VLLM_RPC_BASE_PATH']}/{uuid.uuid4()}")


if __name__ == "__main__":
    main()
