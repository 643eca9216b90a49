"""Importing: pieces into the store's staging, whole models through its admission. It can be
continued after any end, and part by part."""

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from serve.bundle.entry import as_yaml, known, spec_here, told
from serve.bundle.form import BundledModel, Piece
from serve.bundle.part import Head, Part, Torn, opened
from serve.bundle.survey import parts_beside, stem_of, survey
from serve.bundle.trust import Trust
from serve.catalog import Catalog, ModelSpec
from serve.errors import BadFile, UnsafeWeights
from serve.store import Manifest, Progress, Store, Weights


@dataclass(frozen=True, slots=True)
class Intake:
    """What came of an import. `signer`: the fingerprint of a key; None: nobody signed. `weights`:
    of all models that were asked for."""

    id: str
    created_at: int
    signer: str | None
    weights: tuple[Weights, ...]


@dataclass(frozen=True, slots=True)
class _Arrival:
    """One model that arrives: as the bundle tells, as it is served here, as it will be sealed."""

    model: BundledModel
    spec: ModelSpec
    told: Manifest

    @property
    def contents(self) -> set[str]:
        return {file.sha256 for file in self.model.files}


class Importer:
    """Imports bundles into a store. `catalog`: what is served here; `trust`: who must sign."""

    def __init__(self, store: Store, catalog: Catalog, trust: Trust, progress: Progress) -> None:
        self._store, self._catalog, self._trust = store, catalog, trust
        self._progress = progress

    def take(self, paths: Sequence[Path], only: str | None = None) -> Intake:
        """Import what these parts bring; `only`: one model of them.

        A model is there as soon as all its pieces have come. Then BadFile tells if a part is
        damaged, or if parts are missing still; what came is kept for the next time. Raises too
        what `Store.expect` and `Store.admit` raise, and NotAllowed for a signature.
        """
        seen = survey(paths)
        if not seen.heads:
            raise seen.problems[0]
        head = seen.heads[0]
        signer = [self._trust.check(one) for one in seen.heads][0]
        arrivals = self._arrivals(head, only)
        held = {one.model.name: self._store.expect(one.spec, one.told) for one in arrivals}
        waiting = [one for one in arrivals if held[one.model.name] is None]
        self._tell_others(head, waiting)
        problems = list(seen.problems)
        if waiting:
            with _Unpacking(self._store, head, waiting, self._progress) as unpacking:
                problems += unpacking.collect(seen.heads)
                held |= unpacking.admit()
                missing = unpacking.missing_parts()
        if problems:
            raise problems[0]
        if waiting and missing:
            raise _incomplete(head, missing)
        weights = tuple(found for found in held.values() if found is not None)
        return Intake(head.id, head.form.created_at, signer, weights)

    def take_one(self, path: Path, name: str) -> Weights:
        """Import one model; the other parts of the bundle lie beside the one at `path`."""
        return self.take(parts_beside(path), name).weights[0]

    def _tell_others(self, head: Head, waiting: Iterable[_Arrival]) -> None:
        """An old bundle is signed as well as a new one: what it will replace must be seen."""
        for arrival in waiting:
            for held in self._store.manifests():
                if held.name == arrival.told.name and held.revision != arrival.told.revision:
                    self._progress.note(
                        f"{held.name}: {held.revision[:12]} is here since {_day(held.sealed_at)}; "
                        f"the bundle, made {_day(head.form.created_at)}, brings "
                        f"{arrival.told.revision[:12]}, which will be served instead"
                    )

    def _arrivals(self, head: Head, only: str | None) -> list[_Arrival]:
        models = [model for model in head.form.models if only in (None, model.name)]
        if not models:
            names = ", ".join(model.name for model in head.form.models)
            raise BadFile(str(head.path), f"does not hold {only}, but: {names}")
        for model in models:
            if known(model, self._catalog) is None:
                entry = as_yaml(model, self._catalog, head.path)
                self._progress.note(
                    f"# no catalog here knows {model.name}; for one of your own (paths.catalog):\n"
                    f"{entry}"
                )
        return [
            _Arrival(
                model,
                spec_here(model, self._catalog, head.path),
                told(model, head.form.created_at, stem_of(head.path)),
            )
            for model in models
        ]


class _Unpacking:
    """The import of one bundle, while it holds the lock on its staging."""

    def __init__(
        self, store: Store, head: Head, waiting: Sequence[_Arrival], progress: Progress
    ) -> None:
        self._store, self._head, self._waiting = store, head, waiting
        self._progress = progress
        self._open = ExitStack()
        self._staging = self._open.enter_context(store.staging(head.id, progress))
        self._absent = self._find_absent()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._staging.tidy()
        self._open.close()

    def collect(self, heads: Iterable[Head]) -> list[BadFile]:
        """Take every absent piece that these parts have; what is wrong with them."""
        self._staging.require_room(sum(piece.size for piece in self._absent.values()))
        heads = tuple(heads)
        coming = {head.number for head in heads}
        total = sum(piece.size for piece in self._absent.values() if self._part_of(piece) in coming)
        self._progress.start(f"unpacking {self._head.path.name}", total, len(heads))
        try:
            found = [self._collect_from(head) for head in heads]
        finally:
            self._progress.finish()
        return [problem for problem in found if problem is not None]

    def _collect_from(self, head: Head) -> BadFile | None:
        problem: str | None = None
        with opened(head.path, {head.id: head.form}) as part:
            if part.head.id != head.id:
                return BadFile(str(head.path), "is another bundle than a moment ago")
            for piece in part.pieces:
                if piece.number in self._absent:
                    try:
                        self._take(part, piece)
                    except Torn as error:
                        problem = problem or str(error)
        self._progress.file_done()
        return (
            BadFile(str(head.path), f"{problem}; what is good of it is kept") if problem else None
        )

    def _take(self, part: Part, piece: Piece) -> None:
        content = part.read(piece)
        index = piece.offset // self._head.form.piece_bytes
        self._staging.put(piece.content, index, piece.offset, content)
        del self._absent[piece.number]
        self._progress.advance(piece.size)

    def admit(self) -> dict[str, Weights | None]:
        """Have every model sealed that is whole now; None: it is not."""
        found: dict[str, Weights | None] = {}
        absent = {piece.content for piece in self._absent.values()}
        ready = [one for one in self._waiting if not one.contents & absent]
        later = [one for one in self._waiting if one.contents & absent]
        while ready:
            arrival = ready.pop(0)
            self._staging.hold(set().union(*(one.contents for one in [*ready, *later])))
            found[arrival.model.name] = self._admit_one(arrival)
        if not later:
            self._staging.close()
        return found

    def _admit_one(self, arrival: _Arrival) -> Weights:
        for file in arrival.model.files:
            if file.size == 0:
                self._staging.touch(file.sha256)
        try:
            return self._store.admit(arrival.spec, arrival.told, self._staging, self._progress)
        except UnsafeWeights:
            for sha256 in arrival.contents:  # refused for good; nobody waits for these bytes
                self._staging.release(sha256)
            raise

    def missing_parts(self) -> list[int]:
        """The numbers of the parts that hold what is absent still."""
        return sorted({self._part_of(piece) for piece in self._absent.values()})

    def _find_absent(self) -> dict[int, Piece]:
        """The pieces of the models that arrive, by number, as far as they have not come."""
        wanted = set().union(*(one.contents for one in self._waiting))
        here = {sha256: self._staging.pieces(sha256) for sha256 in wanted}
        size = self._head.form.piece_bytes
        return {
            piece.number: piece
            for piece in self._head.form.pieces()
            if piece.content in wanted and piece.offset // size not in here[piece.content]
        }

    def _part_of(self, piece: Piece) -> int:
        end = 0
        for number, count in enumerate(self._head.form.parts, 1):
            end += count
            if piece.number < end:
                return number
        raise LookupError(piece.number)


def _day(at_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at_s))


def _incomplete(head: Head, missing: list[int]) -> BadFile:
    word = "part" if len(missing) == 1 else "parts"
    have = "has" if len(missing) == 1 else "have"
    numbers = ", ".join(map(str, missing))
    name = head.path.with_name(stem_of(head.path))
    problem = f"{word} {numbers} of {head.of} {have} not come yet; what came is kept"
    return BadFile(str(name), problem)
