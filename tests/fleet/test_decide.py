"""When a dead engine comes back, and which survivors are kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.catalog import ModelSpec
from serve.catalog.spec import License
from serve.fleet.decide import (
    LIMIT_DEATHS,
    WINDOW_S,
    Quarantine,
    Restart,
    after_death,
    may_take_over,
)
from serve.plan import Plan, Subject, Wishes
from serve.sources import DirSource

SPEC = ModelSpec(
    "tiny", "test", DirSource(Path("/m")), License("MIT", "yes"), "Qwen2ForCausalLM", 512, "1M"
)
PLAN = Plan(
    subject=Subject(SPEC, Path("/m"), "d1", 1000), device="cpu", gpus=(), cores=(0, 1),
    tensor_parallel=1, context_tokens=512, kv_cache_bytes=4096, kv_tokens=64,
    gpu_memory_utilization=0.0, parts=(), dtype="float16", kv_dtype="fp8", max_num_seqs=8,
    max_concurrency=3.5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("deaths_s", "now_s", "expected"),
    [
        ([0.0], 0.0, Restart(0.0)),
        ([0.0, 1.0], 1.0, Restart(1.0)),
        ([0.0, 1.0, 2.0], 2.0, Restart(2.0)),
        ([0.0, 1.0, 2.0, 3.0], 3.0, Restart(4.0)),
        ([0.0, 1.0, 2.0, 3.0, 4.0], 4.0, Quarantine(5)),
        ([0.0, 1.0, 2.0, 3.0, WINDOW_S + 3.5], WINDOW_S + 3.5, Restart(0.0)),
    ],
)
def test_each_death_waits_longer_until_quarantine(
    deaths_s: list[float], now_s: float, expected: Restart | Quarantine
) -> None:
    assert after_death(deaths_s, now_s) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30).map(sorted))
def test_quarantine_comes_exactly_at_the_limit(deaths_s: list[float]) -> None:
    now_s = deaths_s[-1]
    recent = [death_s for death_s in deaths_s if now_s - death_s <= WINDOW_S]
    assert isinstance(after_death(deaths_s, now_s), Quarantine) == (len(recent) >= LIMIT_DEATHS)


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (Wishes(), True),
        (Wishes("cpu", 512, 4096), True),
        (Wishes("cuda"), False),
        (Wishes(context_tokens=256), False),
        (Wishes(context_tokens=8192), True),
        (Wishes(kv_cache_bytes=1), False),
        (Wishes(tensor_parallel=1, pipeline_parallel=1, concurrency=3), True),
        (Wishes(concurrency=4), False),
        (Wishes(tensor_parallel=2), False),
        (Wishes(pipeline_parallel=2), False),
        (Wishes(dtype="float16", kv_dtype="fp8", max_num_seqs=8), True),
        (Wishes(dtype="bfloat16"), False),
        (Wishes(kv_dtype="fp8_e5m2"), False),
        (Wishes(max_num_seqs=9), False),
        (Wishes(max_num_batched_tokens=512), False),
        (Wishes(gpu_memory_utilization=0.5), False),
    ],
)
def test_a_survivor_must_grant_the_wishes(wishes: Wishes, expected: bool) -> None:
    assert may_take_over(PLAN, PLAN.subject, wishes) is expected


def test_a_survivor_with_other_bytes_or_another_entry_is_a_stranger() -> None:
    assert not may_take_over(PLAN, replace(PLAN.subject, digest="d2"), Wishes())
    other = replace(PLAN.subject, spec=replace(SPEC, engine_args=(("max-num-seqs", 2),)))
    assert not may_take_over(PLAN, other, Wishes())
