"""A look at a repository on a Hub, without its weights.

The index of a large model is larger than everything that a plan needs (DeepSeek-V3: 9 MB for 163
files), and so are all its headers. So the file list, config.json and the headers of a few files are
read; the plan does the rest by arithmetic and compares it with what was read.
"""

import re

from serve.errors import UnsafeWeights
from serve.shape import Tensor
from serve.sources import HubSource
from serve.store import content
from serve.store.access import Access
from serve.store.hub_client import Hub
from serve.store.hub_file import HubFile
from serve.store.look import Look
from serve.store.safetensors import MAX_HEADER_BYTES, tensors_in

# Up to so many files are all read; of more, so many that lie evenly among them.
_MOST_FILES = 5
# Headers are 10 to 80 KB long, so one request is enough for nearly all; a longer one takes another.
_FIRST_BYTES = 96 * 1024
_MOST_CONFIG_BYTES = 2**20
_MOST_BYTES = 900 * 1000
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.safetensors")


def look(source: HubSource, access: Access) -> Look:
    """At one revision; see `Store.look`."""
    hub = Hub(source, access)
    commit, files = hub.listing()
    reading = _Reading(hub, commit, files)
    config = content.parse_object(reading.whole("config.json"), "config.json")
    if "quantization_config" not in config and content.PACKING in files:
        packing = content.parse_object(reading.whole(content.PACKING), content.PACKING)
        config["quantization_config"] = packing
    weights = _weight_files(files)
    chosen = _evenly(weights, _MOST_FILES)
    read = [found for name in chosen if (found := reading.header(name)) is not None]
    return Look(
        revision=commit,
        config=config,
        tensors=tuple(tensor for found in read for tensor in found),
        is_sample=len(read) < len(weights),
        checkpoint_bytes=sum(files[name].size for name in weights),
        n_requests=reading.n_requests + 1,
        n_bytes=reading.n_bytes,
    )


class _Reading:
    """Pieces of one commit's files, counted."""

    def __init__(self, hub: Hub, commit: str, files: dict[str, HubFile]) -> None:
        self._hub, self._commit, self._files = hub, commit, files
        self.n_requests = 0
        self.n_bytes = 0

    def whole(self, name: str) -> bytes:
        """A small file."""
        if name not in self._files:
            raise UnsafeWeights(name, "is missing")
        if (size := self._files[name].size) > _MOST_CONFIG_BYTES:
            raise UnsafeWeights(name, f"is too large: {size} bytes")
        return self._piece(name, 0, size)

    def header(self, name: str) -> tuple[Tensor, ...] | None:
        """What a file of weights says that it holds; None if reading it would take too much."""
        first = self._piece(name, 0, min(_FIRST_BYTES, self._files[name].size))
        length = int.from_bytes(first[:8], "little")
        if length > min(MAX_HEADER_BYTES, self._files[name].size - 8):
            raise UnsafeWeights(name, f"a header of {length} bytes")
        missing = length + 8 - len(first)
        if missing > 0:
            if self.n_bytes + missing > _MOST_BYTES:
                return None
            first += self._piece(name, len(first), missing)
        return tensors_in(first[8 : 8 + length], name)

    def _piece(self, name: str, begin: int, n_bytes: int) -> bytes:
        piece = self._hub.piece(self._commit, name, begin, n_bytes)
        self.n_requests += 1
        self.n_bytes += len(piece)
        if len(piece) < n_bytes:
            raise UnsafeWeights(name, f"ends after {begin + len(piece)} bytes")
        return piece


def _weight_files(files: dict[str, HubFile]) -> list[str]:
    """Without the index, the files of the one set that is whole by its own numbering, else all."""
    sets: dict[str, list[str]] = {}
    for name in files:
        match = _SHARD.fullmatch(name)
        if match is not None and "/" not in name:
            sets.setdefault(match["stem"], []).append(name)
    whole = sets.get("model", [])
    return sorted(whole) or content.weight_files(files, None)


def _evenly(names: list[str], most: int) -> list[str]:
    """The first, the last, and some between."""
    if len(names) <= most:
        return names
    return [names[round(number * (len(names) - 1) / (most - 1))] for number in range(most)]
