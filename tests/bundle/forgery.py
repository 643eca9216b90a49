"""Bundles that nobody should believe: parts taken apart, changed, and put together again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve.bundle.form import canonical, id_of
from serve.bundle.part import MANIFEST, PART, member, part_record
from tests.bundle.machines import members

END = bytes(1024)


def rebuilt(found: dict[str, bytes]) -> bytes:
    """A part of these members, as the writer would write it."""
    return b"".join(member(name, content) for name, content in found.items()) + END


def with_manifest(part: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a part's manifest, with the id that then is right."""
    found = members(part)
    record = json.loads(found[MANIFEST])
    change(record)
    found[MANIFEST] = canonical(record)
    told = json.loads(found[PART])
    found[PART] = part_record(id_of(found[MANIFEST]), told["number"], told["of"])
    part.write_bytes(rebuilt(found))


def with_file(part: Path, path: str, content: bytes, oid: str | None) -> None:
    """Exchange the content of a file of the only model, everything else being consistent."""
    import hashlib

    found = members(part)
    record = json.loads(found[MANIFEST])
    [model] = record["models"]
    [file] = [one for one in model["files"] if one["path"] == path]
    old, new = file["sha256"], hashlib.sha256(content).hexdigest()
    assert sum(one["sha256"] == old for one in model["files"]) == 1
    file |= {"sha256": new, "size": len(content), "oid": oid or new}
    lines = (f"{one['sha256']} {one['size']} {one['path']}\n" for one in model["files"])
    model["digest"] = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    pieces = {name: body for name, body in found.items() if name.startswith("pieces/")}
    bodies, at = [], 0
    for one in record["contents"]:
        names = list(pieces)[at : at + len(one["pieces"])]
        at += len(names)
        if one["sha256"] == old:
            size = record["piece_bytes"]
            cut = [content[n : n + size] for n in range(0, len(content), size)]
            hashes = [hashlib.sha256(piece).hexdigest() for piece in cut]
            one |= {"sha256": new, "size": len(content), "pieces": hashes}
            bodies += cut
        else:
            bodies += [pieces[name] for name in names]
    record["parts"] = [len(bodies)]
    manifest = canonical(record)
    fresh = {MANIFEST: manifest, PART: part_record(id_of(manifest), 1, 1)}
    fresh |= {f"pieces/{number:09d}": body for number, body in enumerate(bodies)}
    part.write_bytes(rebuilt(fresh))
