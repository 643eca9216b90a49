"""A gateway that writes until it is killed, and tells through shared memory how far it came.

Arguments: folder of the journal, file of the count, commit, bytes of a segment, the first number.
"""

import asyncio
import mmap
import sys
from itertools import count
from pathlib import Path

from serve.journal import Journal
from tests.journal.records import end, start


async def write(journal: Journal, told: memoryview, first: int) -> None:
    """Even requests end, odd ones go on for ever; `told` counts calls that have returned."""
    for number in count(first):
        slot = journal.take_slot()
        journal.start(start(number, slot=slot))
        told[0] = 2 * (number - first) + 1
        journal.count(slot, number % 1000)
        if number % 2 == 0:
            journal.end(end(number))
            journal.free_slot(slot)
        told[0] = 2 * (number - first) + 2
        await journal.committed()


def main(folder: str, told: str, commit: str, segment_bytes: str, first: str = "0") -> None:
    """Write until killed."""
    with Path(told).open("r+b") as file:
        counted = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
    journal = Journal(Path(folder), 0, "each" if commit == "each" else "group", int(segment_bytes))
    counted[0] = 0
    asyncio.run(write(journal, counted, int(first)))


if __name__ == "__main__":
    main(*sys.argv[1:])
