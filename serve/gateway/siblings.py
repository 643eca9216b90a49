"""What the gateways of one machine count, on one page: a scrape reaches only one of them.

Each leaves its page in the run folder every few seconds; the one that is asked adds the others'.
"""

import time
from pathlib import Path

from serve.disk import write_atomically
from serve.gateway.merging import merge

EVERY_S = 2.0
_STALE_S = 10.0  # a gateway that is gone leaves its last page behind


def leave(folder: Path, slot: int, text: str) -> None:
    """Write down this gateway's page. NotWritable, DiskFull."""
    write_atomically(folder / f"metrics-{slot}.prom", text.encode())


def together(folder: Path, slot: int, text: str) -> str:
    """All gateways' series, each with a label `gateway`; `text` is our own page, as of now."""
    pages = {str(slot): text}
    for file in sorted(folder.glob("metrics-*.prom")):
        name = file.stem.removeprefix("metrics-")
        try:
            is_fresh = time.time() - file.stat().st_mtime < _STALE_S
            if name not in pages and is_fresh:
                pages[name] = file.read_text()
        except OSError:
            continue  # it goes while we look
    return merge(pages, prefix="", label="gateway")
