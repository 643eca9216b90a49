"""Content that was changed on its way or on the disk: it may still look like a model.

Only a hash can tell. Each family takes dice and a model, and gives the changed model.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.campaigns.subject import SHARDS, Files, subject, text

MOST_FLIPPED_BITS = 3
OTHER = b"not what was here"


@dataclass(frozen=True, slots=True)
class Link:
    """Instead of a file: a link of this kind to a file outside of the model."""

    kind: str  # "symbolic" or "hard"
    content: bytes


Tree = Mapping[str, bytes | Link]
Family = Callable[[random.Random, Files], Tree]


def truncated(dice: random.Random, files: Files) -> Tree:
    """A file ends early."""
    name = dice.choice(sorted(files))
    return {**files, name: files[name][: dice.randrange(len(files[name]))]}


def extended(dice: random.Random, files: Files) -> Tree:
    """A file has more bytes at its end."""
    name = dice.choice(sorted(files))
    return {**files, name: files[name] + dice.randbytes(dice.randint(1, 64))}


def header_bits(dice: random.Random, files: Files) -> Tree:
    """Bits of a shard's header are flipped."""
    name = dice.choice(SHARDS)
    return _flipped(dice, files, name, 0, _header_end(files[name]))


def data_bits(dice: random.Random, files: Files) -> Tree:
    """Bits of a shard's tensors are flipped."""
    name = dice.choice(SHARDS)
    return _flipped(dice, files, name, _header_end(files[name]), len(files[name]))


def text_bits(dice: random.Random, files: Files) -> Tree:
    """Bits of a configuration, tokenizer or template are flipped."""
    name = dice.choice(sorted(files.keys() - set(SHARDS)))
    return _flipped(dice, files, name, 0, len(files[name]))


def zeros(dice: random.Random, files: Files) -> Tree:
    """A piece of a file is zeros, as after a crash of a file system."""
    name = dice.choice(sorted(files))
    begin = dice.randrange(len(files[name]))
    end = dice.randint(begin + 1, len(files[name]))
    return {**files, name: files[name][:begin] + bytes(end - begin) + files[name][end:]}


def swapped_files(dice: random.Random, files: Files) -> Tree:
    """Two files have each other's content: shards above all."""
    one, other = SHARDS if dice.random() < 0.2 else dice.sample(sorted(files), 2)
    return {**files, one: files[other], other: files[one]}


def swapped_blocks(dice: random.Random, files: Files) -> Tree:
    """Two shards have exchanged a block."""
    one, other = (bytearray(files[name]) for name in SHARDS)
    size = dice.randint(8, 64)
    at, there = dice.randrange(len(one) - size), dice.randrange(len(other) - size)
    one[at : at + size], other[there : there + size] = (
        other[there : there + size],
        one[at : at + size],
    )
    return {**files, SHARDS[0]: bytes(one), SHARDS[1]: bytes(other)}


def other_words(dice: random.Random, files: Files) -> Tree:
    """A configuration, tokenizer or template that says something else, in good form."""
    name = dice.choice(sorted(files.keys() - set(SHARDS)))
    word = f"{dice.getrandbits(32):08x}"
    if name.endswith(".json"):
        return {**files, name: text(json.loads(files[name]) | {f"extra_{word}": word})}
    return {**files, name: files[name] + f"{{# {word} #}}".encode()}


def removed(dice: random.Random, files: Files) -> Tree:
    """Files are not there."""
    gone = dice.sample(sorted(files), dice.randint(1, 3))
    return {name: content for name, content in files.items() if name not in gone}


def renamed(dice: random.Random, files: Files) -> Tree:
    """A file has another name."""
    name = dice.choice(sorted(files))
    left = {other: content for other, content in files.items() if other != name}
    return left | {f"{dice.getrandbits(32):08x}-{name}": files[name]}


def linked_out(dice: random.Random, files: Files) -> Tree:
    """Instead of a file lies a link to another one outside."""
    name = dice.choice(sorted(files))
    kind = dice.choice(("symbolic", "hard"))
    return {**files, name: Link(kind, OTHER + dice.randbytes(8))}


def older(dice: random.Random, files: Files) -> Tree:
    """Another revision, valid in itself: an older one that was replayed."""
    return dict(subject(dice.getrandbits(32)))


# Family → where a model of it must be refused (`gates.py`).
_BYTES = ("transit", "load", "verify", "locked", "same commit")
FAMILIES: dict[Family, tuple[str, ...]] = {
    truncated: _BYTES, extended: _BYTES, header_bits: _BYTES, data_bits: _BYTES,
    text_bits: _BYTES, zeros: _BYTES, swapped_files: _BYTES, swapped_blocks: _BYTES,
    other_words: _BYTES, removed: ("load", "verify", "locked"),
    renamed: ("load", "verify", "locked"), linked_out: ("load", "verify"),
    older: ("locked", "replayed", "rebundled", "misdirected", "same commit"),
}  # fmt: skip


def _flipped(dice: random.Random, files: Files, name: str, begin: int, end: int) -> Tree:
    content = bytearray(files[name])
    for position in dice.sample(range(begin * 8, end * 8), dice.randint(1, MOST_FLIPPED_BITS)):
        content[position // 8] ^= 1 << position % 8
    return {**files, name: bytes(content)}


def _header_end(shard: bytes) -> int:
    return 8 + int.from_bytes(shard[:8], "little")
