"""The page that shows every row of the table, predicted against logged."""

from collections.abc import Iterable, Iterator

from serve.plan.memory import SAMPLER_FIRST_RUNNER
from tests.plan.accuracy.outcomes import HAS_MORE, Outcome, Pair, Promise, promises
from tests.plan.accuracy.truth import GIB, version_of

_HEAD = """# How right plans are

Made by `scripts/plan-accuracy FOLDER`; do not edit. `FOLDER` holds `memory_ground_truth.csv`, a
table of start-ups of real engines whose memory was logged, and the models' `config.json` files.
Every row is planned by the rules of its own version of vLLM:

- **tokens**: with the KV memory given that was logged, how many tokens it holds (or the longest
  context, where the engine refused and said so). Pure arithmetic.
- **KV memory**: from the card's size, the utilization and the config alone. Nothing measured.
- **calibrated**: the same once a start has been measured. "own terms": the row's logged weights,
  activations and non-torch memory, from which the KV memory follows; "own start": what this very
  start had left, which says only that a profile is used as it is; "row N's start": what another
  start of the same engine had left at another utilization.
- **weights** are compared where they were logged.
"""

_NEWER = """## Starts that are not in the table

Logs of newer versions that people have published; planned from the card alone in the same way. They
are where the constants of versions since 0.17 come from (`serve/plan/memory.py`), so they show that
the formulas hold together, not that they foresee.
"""

_SAMPLER = """## Leaving one out

Before 0.17 activations are the sampler's peak: bytes per vocabulary entry and sequence, one
constant, fitted to the rows that log it. Fitted anew without the row, it foretells the row so:
"""


def page_of(outcomes: tuple[Outcome, ...], newer: tuple[Outcome, ...]) -> str:
    """The whole page, in Markdown."""
    kept = promises(outcomes)
    blocks = (
        _HEAD,
        "## Promises\n",
        _table(("promise", "kept by", "worst", ""), (_promise(promise) for promise in kept)),
        "## Rows\n",
        _rows(outcomes),
        _notes(outcomes),
        _NEWER,
        _rows(newer),
        _SAMPLER,
        _table(("row", "bytes", "without it", "activations"), _left_out(outcomes)),
    )
    return "\n".join(blocks)


def _promise(promise: Promise) -> tuple[str, ...]:
    limit = f" within {promise.within:.0%}" if promise.within else ""
    wanted = f"{promise.text}{limit}, at least {promise.share:.0%}"
    count = len(promise.errors)
    worst = max(promise.errors, key=abs, default=0.0) if promise.within else 0.0
    shown = _percent(worst) if promise.within else ""
    share = f"{promise.kept} of {count} ({promise.kept / max(1, count):.0%})"
    return wanted, share, shown, "kept" if promise.is_kept else "**broken**"


def _rows(outcomes: tuple[Outcome, ...]) -> str:
    head = ("", "model", "vLLM", "weights GiB", "tokens", "KV memory GiB", "calibrated GiB", "")
    return _table(head, (_row(outcome) for outcome in outcomes))


def _row(outcome: Outcome) -> tuple[str, ...]:
    row = outcome.row
    calibrated = _pair(outcome.calibrated, ".2f")
    if outcome.basis:
        calibrated = f"{calibrated}, {outcome.basis}"
    remarks = list(outcome.reasons)
    if outcome.is_refused is not None:
        remarks.insert(0, "refused, as it was" if outcome.is_refused else "**not refused**")
    return (
        row["id"],
        row["model"],
        row["vllm_version"] or f"not stated ({version_of(row)})",
        _pair(outcome.weights, ".2f"),
        _pair(outcome.tokens, ",.0f") + ("" if outcome.is_counted_for_tokens else ", not counted"),
        _pair(outcome.available, ".2f"),
        calibrated,
        "; ".join(remarks),
    )


def _pair(pair: Pair | None, form: str) -> str:
    if pair is None:
        return ""
    return f"{pair.predicted:{form}} / {pair.logged:{form}} ({_percent(pair.error)})"


def _percent(error: float) -> str:
    return f"{error:+.2%}" if abs(error) < 0.1 else f"{error:+.0%}"


def _notes(outcomes: tuple[Outcome, ...]) -> str:
    off = [o for o in outcomes if o.available and abs(o.available.error) > 0.1]
    counted = [o.row["id"] for o in off if o.launch and o.launch.is_utilization_known]
    every = [o.tokens.error for o in outcomes if o.tokens and o.row["id"] not in HAS_MORE]
    close = sum(abs(error) <= 0.01 for error in every)
    return f"""Predicted / logged. KV memory is counted in the promise where the row states card and
utilization; of those, more than 10 % off: {", ".join(counted) or "none"}. Rows 25 and 26 are a
4-bit checkpoint whose own config is not at hand (which groups, what stays in 16 bit), on cards that
share their memory with the CPU: both unknowns are calibrated away. With row 19 counted too, whose
input is another rank's, {close} of {len(every)} rows have their tokens within 1 %.
"""


def _left_out(outcomes: tuple[Outcome, ...]) -> Iterator[tuple[str, ...]]:
    """Rows of the sampler's fit: planned with the mean of the others."""
    fitted = SAMPLER_FIRST_RUNNER[-1][1]
    measured = {
        o.row["id"]: (o.row.number("activation_gib") or 0.0) * GIB / _logits(o)
        for o in outcomes
        if o.launch and o.row["activation_gib"] and o.row["gpu"] == "H100 80GB"
    }
    used = {key: each for key, each in measured.items() if abs(each / fitted - 1) < 0.25}
    for key, own in used.items():
        rest = [each for other, each in used.items() if other != key]
        mean = sum(rest) / len(rest)
        yield key, f"{own:.2f}", f"{mean:.2f}", _percent(mean / own - 1)


def _logits(outcome: Outcome) -> int:
    launch = outcome.launch
    return launch.geometry.vocab * launch.layout.max_num_seqs if launch else 1


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
