"""From timings to the record and the table that people compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serve.bench.client import Timing
from serve.bench.stats import Summary, summary


@dataclass(frozen=True, slots=True)
class LoadReport:
    """One run. `output_tok_s`: all output tokens by the time from first send to last byte.

    `failed` requests count in no other figure; `errors` says why, each reason once.
    """

    streams: int
    completed: int
    failed: int
    wall_s: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None
    output_tok_s: float
    ttft_s: Summary | None
    tpot_s: Summary | None
    errors: tuple[str, ...]


def report(streams: int, timings: Sequence[Timing]) -> LoadReport:
    """Sum up one run. ValueError without timings."""
    if not timings:
        raise ValueError("no requests")
    done = [timing for timing in timings if timing.error is None]
    wall_s = max(t.ended_s for t in timings) - min(t.started_s for t in timings)
    output_tokens = sum(timing.output_tokens for timing in done)
    cached = [timing.cached_tokens for timing in done if timing.cached_tokens is not None]
    return LoadReport(
        streams=streams,
        completed=len(done),
        failed=len(timings) - len(done),
        wall_s=wall_s,
        prompt_tokens=sum(timing.prompt_tokens for timing in done),
        output_tokens=output_tokens,
        cached_tokens=sum(cached) if cached else None,
        output_tok_s=output_tokens / wall_s if wall_s > 0 else 0.0,
        ttft_s=_summary([t.ttft_s for t in done if t.ttft_s is not None]),
        tpot_s=_summary([t.tpot_s for t in done if t.tpot_s is not None]),
        errors=tuple(sorted({t.error for t in timings if t.error is not None})),
    )


def comparison(figures: Mapping[str, Mapping[str, Sequence[float]]], base: str) -> str:
    """A Markdown table of medians with their extremes, and their ratios to those of `base`.

    `figures`: contender → metric → one value per round. One row a metric, one cell a contender:
    `31.4 (30.9–32.0) 1.42×`.
    """
    rows = []
    for metric, base_values in figures[base].items():
        base_median = summary(base_values).median
        cells = [_cell(values.get(metric, ()), base_median) for values in figures.values()]
        rows.append([metric, *cells])
    return _markdown(["", *figures], rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # Padded, so that it reads as plain text too.
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def _cell(values: Sequence[float], base_median: float) -> str:
    if not values:
        return "–"
    made = summary(values)
    ratio = f" {made.median / base_median:.2f}×" if base_median else ""
    return f"{_short(made.median)} ({_short(made.low)}–{_short(made.high)}){ratio}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _summary(values: Sequence[float]) -> Summary | None:
    return summary(values) if values else None
