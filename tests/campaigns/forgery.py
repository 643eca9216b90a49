"""What vouches for weights, forged: lock files, seals, bundles.

A family takes dice and the true artefacts by their file names. A seal is different on every
machine, so what is made of it is the change, as JSON: fields to set, `null` for those to drop.
"""

import hashlib
import json
import random
from collections.abc import Mapping

from tests.campaigns.subject import text
from tests.campaigns.tampering import Family, Tree

LOCK, SEAL, BUNDLE = "models.lock", "seal.json", "model.inhouse"
Artefacts = Mapping[str, bytes]


def lock_bits(dice: random.Random, artefacts: Artefacts) -> Tree:
    """Bits of the lock file are flipped, its words on the licence aside, which decide nothing."""
    content = bytearray(artefacts[LOCK])
    begin = content.index(b'"license"')
    words = range(begin, content.index(b"\n", begin))
    position = dice.choice([at for at in range(len(content)) if at not in words])
    content[position] ^= 1 << dice.randrange(8)
    return {LOCK: bytes(content)}


def lock_cut(dice: random.Random, artefacts: Artefacts) -> Tree:
    """The lock file ends early."""
    return {LOCK: artefacts[LOCK][: dice.randrange(len(artefacts[LOCK]) - 2)]}


def lock_says_otherwise(dice: random.Random, artefacts: Artefacts) -> Tree:
    """A lock in good form that names other bytes, another revision, or another entry."""
    content = json.loads(artefacts[LOCK])
    [model] = content["models"].values()
    other = f"{dice.getrandbits(256):064x}"
    name = dice.choice(sorted(model["files"]))
    match dice.randrange(6):
        case 0:
            model["files"][name]["sha256"] = other
        case 1:
            model["files"][name]["size"] += dice.randint(1, 10**6)
        case 2:
            model["revision"] = other[:40]
        case 3:
            model["entry"] = other
        case 4:
            del model["files"][name]
            model["files"][f"{other[:8]}.json"] = {"size": 2, "sha256": other}
        case _:
            content |= {"format": dice.randint(2, 10**6)}
    model["digest"] = digest_of(model["files"])
    return {LOCK: text(content)}


def seal_fields(dice: random.Random, artefacts: Artefacts) -> Tree:
    """A seal with a field that is wrong, missing, or one too many."""
    word = f"{dice.getrandbits(256):064x}"
    other = dice.choice([dice.randint(3, 10**6), -1, word, None])
    change = dice.choice(
        [
            {"format": other}, {"digest": word}, {word[:8]: word}, {"revision": word[:39]},
            {"revision": f"../{word[:37]}"}, {"name": word}, {"kind": word[:8]}, {"path": None},
            {"source": word}, {"path": f"/nowhere/{word}"}, {"path": f"../../{word}"},
            {"files": None}, {"files": [word]}, {"files": word}, {"total": word},
        ]
    )  # fmt: skip
    return {SEAL: text(change)}


def seal_files(dice: random.Random, artefacts: Artefacts) -> Tree:
    """A seal that names other bytes, and whose digest was left as it was."""
    word = f"{dice.getrandbits(256):064x}"
    record = {
        "path": dice.choice(("x.json", f"../{word}", "config.json")),
        "size": 1,
        "mtime_ns": 1,
    }
    size = dice.randint(0, 10**9)
    return {SEAL: text({"files": [record | {"sha256": word, "size": size}]})}


def seal_again(dice: random.Random, artefacts: Artefacts) -> Tree:
    """A seal that agrees with itself and with what the disk says without being read, but not with
    the bytes: only reading them tells."""
    return {SEAL: text({"sha256 of": dice.randrange(100), "is": f"{dice.getrandbits(256):064x}"})}


def bundle_cut(dice: random.Random, artefacts: Artefacts) -> Tree:
    """A bundle that ends early."""
    return {BUNDLE: artefacts[BUNDLE][: dice.randrange(len(artefacts[BUNDLE]))]}


def bundle_bits(dice: random.Random, artefacts: Artefacts) -> Tree:
    """A bundle with flipped bits, anywhere."""
    content = bytearray(artefacts[BUNDLE])
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return {BUNDLE: bytes(content)}


def bundle_zeros(dice: random.Random, artefacts: Artefacts) -> Tree:
    """A bundle with a piece of zeros."""
    content = artefacts[BUNDLE]
    begin = dice.randrange(len(content))
    end = min(len(content), begin + dice.randint(16, 4096))
    return {BUNDLE: content[:begin] + bytes(end - begin) + content[end:]}


def bundle_blocks(dice: random.Random, artefacts: Artefacts) -> Tree:
    """A bundle with two blocks exchanged."""
    content = bytearray(artefacts[BUNDLE])
    size = dice.choice((8, 64, 512))
    one, other = dice.sample(range(len(content) // size), 2)
    here, there = (slice(at * size, (at + 1) * size) for at in (one, other))
    content[here], content[there] = content[there], content[here]
    return {BUNDLE: bytes(content)}


def bundle_more(dice: random.Random, artefacts: Artefacts) -> Tree:
    """A bundle with bytes before or behind it."""
    noise = dice.randbytes(dice.randint(1, 600))
    content = artefacts[BUNDLE]
    return {BUNDLE: noise + content if dice.random() < 0.5 else content + noise}


FAMILIES: dict[Family, tuple[str, ...]] = {
    lock_bits: ("lock",), lock_cut: ("lock",), lock_says_otherwise: ("lock",),
    seal_fields: ("seal",), seal_files: ("seal",), seal_again: ("reread",),
    bundle_cut: ("bundle",), bundle_bits: ("bundle",), bundle_zeros: ("bundle",),
    bundle_blocks: ("bundle",), bundle_more: ("bundle",),
}  # fmt: skip


def digest_of(files: Mapping[str, Mapping[str, object]]) -> str:
    """The digest that a lock file and a seal have, worked out without the code under test."""
    lines = sorted(f"{one['sha256']} {one['size']} {path}\n" for path, one in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
