"""Weights that are held, written into a bundle: hashed on the way, whole or not there at all."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from serve import __version__
from serve.bundle import openssf, signature
from serve.bundle.draft import draft, drafting
from serve.bundle.entry import bundled
from serve.bundle.form import PIECE_BYTES, Content, Form, Piece, contents_of, id_of, to_bytes
from serve.bundle.part import (
    MANIFEST,
    OPENSSF,
    PART,
    SIGNATURE,
    header,
    member,
    padding,
    part_record,
    piece_name,
)
from serve.bundle.signature import PrivateKey
from serve.bundle.spread import END_BYTES, head_bytes, part_bytes, spread
from serve.catalog import ModelSpec
from serve.errors import HashMismatch
from serve.policy import Policy
from serve.store import Manifest, Progress, Store


@dataclass(frozen=True, slots=True)
class Order:
    """How a bundle is wished. `created_at`: Unix seconds; `max_bytes`: each part is smaller; None:
    one file. `openssf_key`: a PEM file. Equal orders of equal weights give equal bytes, but for
    OpenSSF's signature, which is another one each time."""

    target: Path
    created_at: int
    max_bytes: int | None = None
    key: PrivateKey | None = None
    openssf_key: Path | None = None
    piece_bytes: int = PIECE_BYTES


@dataclass(frozen=True, slots=True)
class Written:
    """What was written. `signer`: the fingerprint of the key, None without one."""

    id: str
    files: tuple[Path, ...]
    total_bytes: int
    models: tuple[str, ...]
    signer: str | None


def export(
    specs: Sequence[ModelSpec], store: Store, policy: Policy, order: Order, progress: Progress
) -> Written:
    """Write the weights of these models into one bundle.

    NotPulled, NotAllowed; WeightsDamaged if a file is not what was verified once; SettingsError if
    the target is there or the size impossible; DiskFull, NotWritable. Then nothing is left.
    """
    held = {spec.name: store.manifest(spec) for spec in specs}
    for spec in specs:
        policy.check(spec, held[spec.name].kind, held[spec.name].source)
    lengths = [len(content) for content in _signed(order, b"").values()]
    form = _form([(spec, held[spec.name]) for spec in specs], order, lengths)
    head = head_bytes(form, lengths)
    targets = _targets(order.target, len(form.parts))
    total = sum(part_bytes(form, head, number + 1) for number in range(len(targets)))
    reading = _Reading(held.values(), form)
    progress.start(f"writing {order.target.name}", form.total_bytes, len(targets))
    try:
        with drafting(order.target, targets, total):
            pieces = reading.pieces(progress)
            for target, count in zip(targets, form.parts, strict=True):
                _write_pieces(draft(target), head, count, pieces)
                progress.file_done()
            next(pieces, None)  # the last file's own check
            form = form.with_pieces(reading.hashes)
            manifest = to_bytes(form)
            _write_heads(targets, manifest, _signed(order, manifest))
    except HashMismatch:
        _put_aside(store, reading.owner, progress)
        raise
    finally:
        progress.finish()
    names = tuple(model.name for model in form.models)
    signer = signature.fingerprint(order.key.public_key()) if order.key else None
    return Written(id_of(manifest), tuple(targets), total, names, signer)


def _put_aside(store: Store, owner: Manifest, progress: Progress) -> None:
    """The store looks itself: WeightsDamaged, and they are in quarantine."""
    for weights in store.list():
        if (weights.name, weights.revision) == (owner.name, owner.revision):
            store.verify(weights, progress)


def _form(
    models: Iterable[tuple[ModelSpec, Manifest]], order: Order, lengths: Sequence[int]
) -> Form:
    rows = tuple(sorted((bundled(*one) for one in models), key=lambda model: model.name))
    contents = contents_of(rows, order.piece_bytes)
    form = Form(
        1, f"inhouse {__version__}", order.created_at, order.piece_bytes, rows, contents, ()
    )
    return spread(form, lengths, order.max_bytes)


def _signed(order: Order, manifest: bytes) -> dict[str, bytes]:
    """The members that sign; they are as long for every manifest."""
    signed = {SIGNATURE: signature.sign(order.key, manifest)} if order.key else {}
    if order.openssf_key:
        signed[OPENSSF] = openssf.sign(order.openssf_key, manifest)
    return signed


def _targets(target: Path, count: int) -> list[Path]:
    if count == 1:
        return [target]
    return [target.with_name(f"{target.name}.{number:03d}") for number in range(1, count + 1)]


def _write_pieces(path: Path, head: int, count: int, pieces: Iterator[tuple[Piece, bytes]]) -> None:
    with path.open("wb") as file:
        file.seek(head)
        for _ in range(count):
            piece, content = next(pieces)
            file.write(header(piece_name(piece.number), piece.size))
            file.write(content)
            file.write(padding(piece.size))
        file.write(bytes(END_BYTES))


def _write_heads(targets: Sequence[Path], manifest: bytes, signed: dict[str, bytes]) -> None:
    """Only now are all hashes known; their room was left free."""
    common = member(MANIFEST, manifest) + b"".join(member(*one) for one in signed.items())
    for number, target in enumerate(targets, 1):
        record = part_record(id_of(manifest), number, len(targets))
        with draft(target).open("r+b") as file:
            file.write(common + member(PART, record))


class _Reading:
    """The contents, read once from front to back. `hashes`: of the pieces read so far; `owner`: the
    weights that are being read."""

    def __init__(self, held: Iterable[Manifest], form: Form) -> None:
        self._form = form
        self._files = {
            record.sha256: (manifest, record.path) for manifest in held for record in manifest.files
        }
        self.owner = next(iter(self._files.values()))[0]
        self.hashes: list[str] = []

    def pieces(self, progress: Progress) -> Iterator[tuple[Piece, bytes]]:
        """Every piece with its bytes. HashMismatch at the latest behind the last one of a file that
        is not what was verified."""
        number = 0
        for content in self._form.contents:
            for offset, found in self._pieces_of(content):
                self.hashes.append(hashlib.sha256(found).hexdigest())
                yield Piece(number, self.hashes[-1], len(found), content.sha256, offset), found
                number += 1
                progress.advance(len(found))

    def _pieces_of(self, content: Content) -> Iterator[tuple[int, bytes]]:
        self.owner, name = self._files[content.sha256]
        whole, offset = hashlib.sha256(), 0
        with (self.owner.path / name).open("rb") as file, ThreadPoolExecutor(1) as beside:
            while offset < content.size:
                wanted = min(self._form.piece_bytes, content.size - offset)
                found = file.read(wanted)
                if len(found) != wanted:
                    end = offset + len(found)
                    raise HashMismatch(name, f"{content.size} bytes", f"{end} bytes")
                hashing = beside.submit(whole.update, found)
                yield offset, found  # the piece is hashed and written meanwhile
                hashing.result()
                offset += len(found)
        if whole.hexdigest() != content.sha256:
            raise HashMismatch(name, content.sha256, whole.hexdigest())
