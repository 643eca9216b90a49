import asyncio
from pathlib import Path

import pytest

from serve.bench.client import Target, Timing
from serve.bench.report import LoadReport, comparison, report
from serve.bench.run import closed_loop
from serve.bench.workload import prompts
from tests.bench.answers import GOOD, answering


def test_a_closed_loop_sends_what_it_was_told(tmp_path: Path) -> None:
    async def run() -> tuple[LoadReport, int]:
        async with answering(tmp_path / "s", GOOD) as asked:
            target = Target("http://x", "m", str(tmp_path / "s"))
            made = await closed_loop(target, prompts(5, 3, "s"), streams=3, requests=8)
        return made, len(set(asked))

    made, distinct = asyncio.run(run())
    assert (made.completed, made.failed, distinct) == (8, 0, 8)
    assert made.output_tokens == 24 and made.cached_tokens == 64
    assert made.output_tok_s == pytest.approx(24 / made.wall_s)
    assert made.ttft_s is not None and made.ttft_s.count == 8


def test_failures_are_counted_and_kept_out() -> None:
    good = Timing(0.0, 2.0, (0.5, 1.0, 2.0), prompt_tokens=9, output_tokens=3)
    made = report(2, [good, Timing(0.0, 4.0, (), error="cut"), Timing(0.0, 1.0, (), error="cut")])
    assert (made.completed, made.failed, made.errors) == (1, 2, ("cut",))
    assert made.output_tok_s == pytest.approx(3 / 4)
    assert made.tpot_s is not None and made.tpot_s.median == pytest.approx(0.75)
    assert made.cached_tokens is None


def test_no_requests_no_report() -> None:
    with pytest.raises(ValueError, match="no requests"):
        report(1, [])


def test_a_comparison_shows_medians_extremes_and_ratios() -> None:
    table = comparison(
        {"bare": {"tok/s": [10.0, 12.0, 11.0], "ready s": [2.0]}, "ours": {"tok/s": [22.0]}}, "bare"
    )
    assert table.splitlines() == [
        "|         | bare                   | ours                   |",
        "| ------- | ---------------------- | ---------------------- |",
        "| tok/s   | 11.0 (10.0–12.0) 1.00× | 22.0 (22.0–22.0) 2.00× |",
        "| ready s | 2 (2–2) 1.00×          | –                      |",
    ]
