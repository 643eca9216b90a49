"""Pulls the tiny model in a process that a test can kill: HOME ENDPOINT. Says every step."""

import sys
from pathlib import Path

from tests.store.models import HUB_SPEC, Recorder, store_at


def main(home: str, endpoint: str) -> None:
    recorder = Recorder(on_advance=lambda n: print(n, flush=True))
    store_at(Path(home), endpoint).pull(HUB_SPEC, recorder)


if __name__ == "__main__":
    main(*sys.argv[1:])
