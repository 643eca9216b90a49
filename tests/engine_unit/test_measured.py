"""What engines say of their memory, over versions, ranks and kinds of start."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.engine.life import Record, read_record, write_record
from serve.engine.measured import Measured, measured_in, read_log, read_metrics, to_profile
from serve.profiles import ProfileBook, ProfileKey
from tests.engine_unit.pools import fake_plan

GIB = 2**30
STARTS = Path(__file__).parent / "starts"
KEY = ProfileKey("aa" * 32, "CPU", "0.32", 1, 1, 1, 2048, 128, "auto", False)

# Name of the excerpt → sizes in GiB, counts as they are; what is not named was not said.
SAID: dict[str, dict[str, float]] = {
    "one-card": {
        "weights_bytes": 10.24, "activation_bytes": 0.73, "graph_bytes": 0.06, "other_bytes": 0.23,
        "budget_bytes": 14.27, "available_kv_bytes": 3.01, "kv_tokens": 172_032,
        "max_concurrency": 1.0,
    },
    "three-cards": {
        "weights_bytes": 61.74, "activation_bytes": 3.81, "graph_bytes": 0.38, "other_bytes": 2.76,
        "budget_bytes": 86.42, "available_kv_bytes": 17.73, "kv_tokens": 2_143_243,
        "max_concurrency": 2.04,
    },
    "apart": {
        "weights_bytes": 15.27, "activation_bytes": 1.42, "graph_bytes": 0.55, "other_bytes": 0.93,
        "budget_bytes": 72.85, "available_kv_bytes": 54.68, "kv_tokens": 398_160,
        "max_concurrency": 9.72,
    },
    "told": {
        "weights_bytes": 15.27, "graph_bytes": 0, "kv_tokens": 364_080, "max_concurrency": 8.89,
    },
    "refused": {"weights_bytes": 15.27, "available_kv_bytes": 4.12},
    "nothing-left": {"weights_bytes": 76.11, "available_kv_bytes": -5.31},
    "cpu-told": {"kv_tokens": 11_648, "max_concurrency": 5.69},
    "cpu-measured": {
        "other_bytes": 1.01, "budget_bytes": 4.72, "available_kv_bytes": 3.71,
        "kv_tokens": 172_672, "max_concurrency": 84.31,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_a_start_is_read(name: str) -> None:
    measured = {
        field: value
        for field, value in asdict(measured_in(STARTS / f"{name}.txt")).items()
        if value is not None
    }
    expected = {
        field: round(value * GIB) if field.endswith("_bytes") else value
        for field, value in SAID[name].items()
    }
    assert measured == pytest.approx(expected, abs=2)


def test_every_excerpt_is_used() -> None:
    assert {path.stem for path in STARTS.glob("*.txt")} == set(SAID)


@pytest.mark.parametrize("name", ["one-card", "three-cards", "apart"])
def test_the_terms_add_up_to_the_budget(name: str) -> None:
    """Each figure is rounded to 0.01 GiB by the engine."""
    m = measured_in(STARTS / f"{name}.txt")
    terms = (m.weights_bytes, m.activation_bytes, m.graph_bytes, m.other_bytes)
    total = sum(term for term in terms if term is not None) + (m.available_kv_bytes or 0)
    assert m.budget_bytes is not None
    assert abs(total - m.budget_bytes) <= 0.02 * GIB


METRICS = """# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{_block_size_resolved="True",block_size="128",cache_dtype="auto",engine="0",\
kv_cache_max_concurrency="5.6875",kv_cache_memory_bytes="268435456",kv_cache_size_tokens="11648",\
note="a \\"quoted\\" one, block_size=\\"9\\"",num_gpu_blocks="91",sliding_window="None"} 1.0
vllm:num_requests_running{engine="0"} 0.0
"""


def test_the_pool_is_read_from_the_metrics() -> None:
    assert read_metrics(METRICS) == Measured(kv_blocks=91, block_tokens=128, kv_tokens=11648)


def test_of_several_engines_the_least_counts() -> None:
    second = METRICS.replace('engine="0"', 'engine="1"').replace('blocks="91"', 'blocks="90"')
    assert read_metrics(METRICS + second).kv_blocks == 90


def test_what_older_engines_do_not_say_is_not_known() -> None:
    without = METRICS.replace("kv_cache_size_tokens", "something_else")
    assert read_metrics(without.replace('"91"', '"None"')) == Measured(block_tokens=128)
    assert read_metrics("") == Measured()


def test_no_log_says_nothing(tmp_path: Path) -> None:
    assert measured_in(tmp_path / "missing.log") == Measured()
    assert read_log("INFO: Application startup complete.") == Measured()


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    read_log(text)
    read_metrics(text)


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("is_kv_fixed", [False, True])
def test_whatever_was_said_can_be_kept(tmp_path: Path, name: str, is_kv_fixed: bool) -> None:
    plan = replace(fake_plan(), is_kv_fixed=is_kv_fixed)
    measured = measured_in(STARTS / f"{name}.txt")
    profile = to_profile(measured, KEY, plan, 1_000.0, 2.5)
    book = ProfileBook(tmp_path)
    book.record(profile)
    assert book.find(KEY) == profile
    assert profile.outcome == "ready" and profile.model == "fake"
    left = None if is_kv_fixed else measured.available_kv_bytes
    assert profile.available_kv_bytes == left


def test_a_plan_keeps_its_key_for_a_supervisor_after_us(tmp_path: Path) -> None:
    record = Record("m-0", replace(fake_plan(), key=KEY), "eager", "off", tmp_path, 1.0, 2.0)
    write_record(record, tmp_path)
    assert read_record(tmp_path) == record


def test_a_start_that_failed_is_kept_as_one() -> None:
    plan: Any = replace(fake_plan(), is_kv_fixed=False)
    profile = to_profile(measured_in(STARTS / "refused.txt"), KEY, plan, 1_000.0, None)
    assert (profile.outcome, profile.ready_after_s) == ("failed", None)
    assert profile.available_kv_bytes == round(4.12 * GIB)
