"""Verifying: every piece of the parts at hand hashed, without a store, without a trace."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve.bundle.form import BundledModel
from serve.bundle.part import Head, Torn, opened
from serve.bundle.survey import survey
from serve.bundle.trust import Trust
from serve.errors import BadFile, NotAllowed
from serve.store import Progress


@dataclass(frozen=True, slots=True)
class PartReport:
    """One file. `number` None: it is no part of the bundle. `problem` None: it is good."""

    path: Path
    number: int | None
    signer: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a bundle is and whether it is whole. `missing`: parts that are not at hand."""

    id: str
    producer: str
    created_at: int
    total_bytes: int
    models: tuple[BundledModel, ...]
    parts: tuple[PartReport, ...]
    missing: tuple[int, ...]

    @property
    def is_good(self) -> bool:
        return not self.missing and all(part.problem is None for part in self.parts)


def inspect(paths: Sequence[Path], trust: Trust, progress: Progress) -> Report:
    """Hash all pieces of these parts, and see who signed. BadFile if none is a part of a bundle."""
    seen = survey(paths)
    if not seen.heads:
        raise seen.problems[0]
    head = seen.heads[0]
    problems = {Path(problem.path): problem.problem for problem in seen.problems}
    total = sum(_wanted_bytes(one) for one in seen.heads)
    progress.start(f"verifying {head.path.name}", total, len(seen.heads))
    try:
        rows = [_inspect_part(one, trust, problems.get(one.path), progress) for one in seen.heads]
    finally:
        progress.finish()
    usable = {one.path for one in seen.heads}
    rows += [PartReport(p, None, None, why) for p, why in problems.items() if p not in usable]
    numbers = {one.number for one in seen.heads}
    form = head.form
    return Report(
        head.id, form.producer, form.created_at, form.total_bytes, form.models, tuple(rows),
        tuple(number for number in range(1, head.of + 1) if number not in numbers),
    )  # fmt: skip


def _inspect_part(head: Head, trust: Trust, cut: str | None, progress: Progress) -> PartReport:
    problems, signer = [], None
    try:
        signer = trust.check(head)
    except BadFile as error:
        problems.append(error.problem)
    except NotAllowed as error:
        problems.append(f"{error.rule} does not allow it: {error.value}")
    with opened(head.path, {head.id: head.form}) as part:
        for piece in part.pieces:
            try:
                part.read(piece)
            except Torn as error:
                problems.append(str(error))
            progress.advance(piece.size)
    progress.file_done()
    return PartReport(head.path, head.number, signer, _summary([cut, *problems]))


def _summary(problems: Iterable[str | None]) -> str | None:
    """The first problem, and how many more there are."""
    found = [problem for problem in problems if problem]
    if not found:
        return None
    return found[0] + (f"; and {len(found) - 1} more" if len(found) > 1 else "")


def _wanted_bytes(head: Head) -> int:
    first = sum(head.form.parts[: head.number - 1])
    end = first + head.form.parts[head.number - 1]
    return sum(piece.size for piece in head.form.pieces() if first <= piece.number < end)
