"""scripts/plan-accuracy FOLDER: every row of the table planned, the result written to a page."""

import argparse
from pathlib import Path

from tests.plan.accuracy.newer import newer_rows
from tests.plan.accuracy.outcomes import outcomes_of, promises
from tests.plan.accuracy.page import page_of
from tests.plan.accuracy.truth import read_rows

PAGE = Path(__file__).parents[3] / "docs" / "plan-accuracy.md"


def main() -> int:
    arguments = _arguments()
    folder = arguments.folder
    outcomes = outcomes_of(folder, read_rows(folder))
    arguments.page.write_text(page_of(outcomes, outcomes_of(folder, newer_rows())))
    kept = promises(outcomes)
    for promise in kept:
        state = "kept" if promise.is_kept else "BROKEN"
        print(f"{promise.text}: {promise.kept} of {len(promise.errors)}, {state}")
    return 0 if all(promise.is_kept for promise in kept) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/plan-accuracy", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds memory_ground_truth.csv and configs/")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page is written")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
