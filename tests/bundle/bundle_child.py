"""Exports or imports the tiny model in a process that a test can kill. Says every step.

    python -m tests.bundle.bundle_child export FOLDER BUNDLE [MAX_BYTES]
    python -m tests.bundle.bundle_child import FOLDER BUNDLE…

FOLDER is the machine's (`Machine.folder`). Exits 4 when parts are missing still.
"""

import sys
from pathlib import Path

from serve.errors import BadFile
from tests.bundle.machines import HUB_SPEC, Machine
from tests.store.models import Recorder, tell


def main(verb: str, folder: str, *rest: str) -> int:
    said = Recorder(on_advance=tell)
    machine = Machine(Path(folder), (HUB_SPEC,), seen=said)
    if verb == "export":
        max_bytes = int(rest[1]) if rest[1:] else None
        machine.export(Path(rest[0]), max_bytes=max_bytes)
    else:
        try:
            machine.take(*map(Path, rest))
        except BadFile:
            return 4
    print("done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
