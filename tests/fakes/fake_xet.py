"""The storage service of Xet as far as its client asks it: which chunks a file is made of, and the
chunks themselves, uncompressed.

A file of ours is one xorb (the service's container), named after the file's sha256 as the file is.
"""

import json
import re

CHUNK_BYTES = 64 * 1024
_HEADER_BYTES = 8
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def reconstruction(content: bytes, name: str, url: str, asked: str) -> tuple[int, bytes]:
    """The status and body for `/v1/reconstructions/<name>`: the chunks that hold what was `asked`
    for of the file (a Range header), and where in the xorb at `url` they are."""
    begin, end = 0, len(content)
    if wanted := _RANGE.fullmatch(asked):
        begin = int(wanted[1])
        end = min(end, int(wanted[2]) + 1 if wanted[2] else end)
    if begin >= end:
        return 416, b""
    first, last = begin // CHUNK_BYTES, -(-end // CHUNK_BYTES)
    chunks = {"start": first, "end": last}
    whole = CHUNK_BYTES + _HEADER_BYTES
    tail = min(last * CHUNK_BYTES, len(content))
    place = {"start": first * whole, "end": tail + last * _HEADER_BYTES - 1}
    answer = {
        "offset_into_first_range": begin - first * CHUNK_BYTES,
        "terms": [{"hash": name, "unpacked_length": tail - first * CHUNK_BYTES, "range": chunks}],
        "fetch_info": {name: [{"range": chunks, "url": url, "url_range": place}]},
    }
    return 200, json.dumps(answer).encode()


def xorb(content: bytes) -> bytes:
    """The file as the service keeps it: chunks, each after a header of version, length in the xorb,
    compression (none) and length."""
    pieces = []
    for begin in range(0, len(content), CHUNK_BYTES):
        chunk = content[begin : begin + CHUNK_BYTES]
        length = len(chunk).to_bytes(3, "little")
        pieces += [b"\0", length, b"\0", length, chunk]
    return b"".join(pieces)
