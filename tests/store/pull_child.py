"""Pulls the tiny model in a process that a test can kill: HOME ENDPOINT. Says every step, and at
the end how much memory it took at most."""

import signal
import sys
from pathlib import Path

from tests.store.models import HUB_SPEC, Recorder, store_at, tell

# Not getrusage: its maximum counts the process that this one was forked from.
STATUS = Path("/proc/self/status")


def main(home: str, endpoint: str) -> None:
    recorder = Recorder(on_advance=tell)
    try:
        store_at(Path(home), endpoint).pull(HUB_SPEC, recorder)
    except KeyboardInterrupt:  # as the command line does
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    [peak] = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    print("peak", int(peak.split()[1]) * 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
