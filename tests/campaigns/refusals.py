"""The campaign `mutations`: each changed model is refused, and the true one accepted beside it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from serve.errors import InhouseError
from tests.campaigns.gates import GATES, Accepted, World, world
from tests.campaigns.mutation import Mutation, mutations
from tests.campaigns.report import Report

PROMISE = (
    "Different mutations of a small valid model (by the digest of what was changed): each is "
    "refused at its gate with an error that says why, nothing of it is held, and the unmutated "
    "model is accepted at the same gate in the same trial."
)


def run(
    files: Mapping[str, bytes], count: int, seed: int, place: Path,
    told: Callable[[str], None] = lambda _: None,
) -> Report:  # fmt: skip
    """Make as many mutations, and ask the gate of each."""
    report = Report("mutations", PROMISE, ("family", "gate", "refused with"))
    with world(files, place / "world") as known:
        for mutation in mutations(files, known.artefacts, count, seed):
            one = place / f"{mutation.number}"
            if problem := _trial(known, one, mutation, report):
                told(problem)
            shutil.rmtree(one, ignore_errors=True)
    return report


def _trial(known: World, place: Path, mutation: Mutation, report: Report) -> str | None:
    kind = mutation.family.replace("_", " "), mutation.gate
    try:
        error = GATES[mutation.gate](known, place, mutation)
    except Accepted as came:
        problem = f"{mutation.name}: {came}" if str(came) else f"{mutation.name}: accepted"
    except InhouseError as true:
        problem = f"{mutation.name}: the unmutated model was refused: {true!r}"
    except Exception as other:  # whatever it is, it is a finding
        problem = f"{mutation.name}: {type(other).__name__}: {other}"
    else:
        report.passed(*kind, type(error).__name__)
        return None
    report.failed(problem, *kind, "–")
    return problem
