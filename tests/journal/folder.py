"""What lies in a journal's folder, read by the reader, in full."""

from pathlib import Path

from serve.journal import Journals
from serve.journal.records import Record


def read_all(folder: Path, most: int = 1000) -> list[Record]:
    """Every record of every writer, in order."""
    journals, records = Journals(folder), list[Record]()
    for writer in journals.writers():
        for segment in writer.segments:
            offset = 0
            while True:
                piece = journals.read(writer, segment, offset, most)
                records += piece.records
                if piece.is_closed or not piece.records:
                    break
                offset = piece.end
    return records
