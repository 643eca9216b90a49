"""What lies on the disk, told without any of the store's code: plain JSON and hashlib."""

import hashlib
import json
from pathlib import Path

from tests.campaigns.subject import Files


class Broken(Exception):
    """The store is in a state that must not be; the text says which."""


def held(place: Path, files: Files, *others: Files) -> bool:
    """Whether the model with these files is held whole; else nothing of it is. Broken if it is
    neither, or if anything else is held than one of the `others`, whole."""
    _check_blobs(place / "hf" / "hub")
    seals = sorted((place / "home" / "manifests").glob("*.json"))
    found = [_is_of(seal, place / "home", files, others) for seal in seals]  # every one
    return any(found)


def _is_of(seal: Path, home: Path, files: Files, others: tuple[Files, ...]) -> bool:
    """Whether the seal is one of the model with these files, which all lie there."""
    try:
        record = json.loads(seal.read_bytes())
    except ValueError as error:
        raise Broken(f"half a seal: {seal.name}") from error
    if record.get("damage"):
        raise Broken(f"{seal.name}: whole weights are in quarantine: {record['damage']}")
    told = {one["path"]: one["sha256"] for one in record["files"]}
    for model in (files, *others):
        if told == {name: hashlib.sha256(true).hexdigest() for name, true in model.items()}:
            break
    else:
        raise Broken(f"{seal.name}: seals something else: {told}")
    for name, true in model.items():
        _same(home / record["path"] / name, true)
    lines = sorted(f"{one['sha256']} {one['size']} {one['path']}\n" for one in record["files"])
    if record["digest"] != hashlib.sha256("".join(lines).encode()).hexdigest():
        raise Broken(f"{seal.name}: another digest")
    return model is files


def check_view(view: Path, files: Files) -> None:
    """Broken unless the folder for engines holds exactly these files."""
    present = {file.relative_to(view).as_posix() for file in view.rglob("*") if file.is_file()}
    if present != files.keys():
        raise Broken(f"the view holds {sorted(present)}")
    for name, true in files.items():
        _same(view / name, true)


def _same(lies: Path, true: bytes) -> None:
    try:
        content = lies.read_bytes()
    except OSError as error:
        raise Broken(f"{lies.name}: {error.strerror}") from error
    if content != true:
        raise Broken(f"{lies.name}: {len(content)} other bytes instead of {len(true)}")


def _check_blobs(hub: Path) -> None:
    """A blob's name is the hash of its content; a link of a snapshot leads to a blob."""
    for blob in hub.glob("models--*/blobs/*"):
        if not blob.is_file() or "." in blob.name:
            continue
        content = blob.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if blob.name not in (hashlib.sha256(content).hexdigest(), git):
            raise Broken(f"a blob with other content than its name says: {blob.name}")
