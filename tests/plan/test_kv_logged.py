"""The KV arithmetic against public start-up logs of vLLM, each planned by the rules of its day."""

import csv
import json
import re
from dataclasses import replace
from statistics import mean

import pytest

from serve.geometry import read_geometry
from serve.plan.kv import Pool, pool
from serve.plan.plan import Layout
from serve.plan.versions import rules
from serve.shape import Geometry, Parallel
from tests.plan.known import FACTS

GIB = 2**30
TABLE = FACTS / "memory_ground_truth.csv"
ROWS = list(csv.DictReader(TABLE.read_text().splitlines())) if TABLE.exists() else []

pytestmark = pytest.mark.skipif(not ROWS, reason="no folder of model facts lies beside us")

# The draft head of this start is one more layer with a KV cache.
DRAFT_LAYERS = {"9": 1}
# What is printed is another rank's size, while the tokens are those of the rank with the least.
OF_ANOTHER_RANK = {"19"}
# A printed size is rounded to 0.01 GiB.
ROUNDING = 0.005 * GIB


def rows_with(*columns: str) -> list[dict[str, str]]:
    return [row for row in ROWS if row["config_file"] and all(row[each] for each in columns)]


def pool_of(row: dict[str, str]) -> Pool:
    """Of the stage that has most to hold."""
    geometry = geometry_of(row)
    version = re.search(r"0\.\d+", row["vllm_version"])
    rule = rules(version[0] if version else None)
    context = re.search(r"decode-context-parallel-size (\d+)", row["other_flags"])
    total = int(float(row["gpu_total_gib"] or 0) * GIB)
    tokens, sequences = rule.batch_limits(total, row["gpu"], "cuda", 1)
    stages = int(row["pp"] or 1)
    kv_dtype = "fp8" if row["kv_cache_dtype"].startswith("fp8") else "auto"
    layout = Layout(
        Parallel(int(row["tp"]), stages, decode_context=int(context[1]) if context else 1),
        int(row["max_model_len"]), tokens, sequences, kv_dtype,
        rule.block_tokens(geometry, "cuda", kv_dtype), 0.9, ".".join(map(str, rule.version)),
    )  # fmt: skip
    found = [pool(geometry, stage, layout, "cuda") for stage in range(stages)]
    return max(found, key=lambda each: each.bytes_per_block)


def geometry_of(row: dict[str, str]) -> Geometry:
    geometry = read_geometry(json.loads((FACTS / "configs" / row["config_file"]).read_text()))
    draft = geometry.layers[: DRAFT_LAYERS.get(row["id"], 0)]
    return replace(geometry, layers=geometry.layers + draft)


def available(row: dict[str, str]) -> int:
    return int(float(row["available_kv_gib"]) * GIB)


def test_tokens_are_within_one_percent_where_the_memory_is_given() -> None:
    rows = [
        row
        for row in rows_with("available_kv_gib", "gpu_kv_tokens", "max_model_len")
        if row["id"] not in OF_ANOTHER_RANK
    ]
    errors = {}
    for row in rows:
        found = pool_of(row).tokens_in(available(row), int(row["max_model_len"]))
        errors[row["id"]] = found / int(row["gpu_kv_tokens"]) - 1
    assert len(errors) >= 10
    within = mean(abs(error) <= 0.01 for error in errors.values())
    assert within >= 0.95, {row: f"{error:.2%}" for row, error in errors.items()}


def test_the_concurrency_is_the_logged_one() -> None:
    rows = rows_with("available_kv_gib", "max_concurrency_x", "max_model_len")
    for row in rows:
        context = int(row["max_model_len"])
        held, n_bytes = pool_of(row), available(row)
        low, high = (
            held.concurrency_in(int(n_bytes + by), context) for by in (-ROUNDING, ROUNDING)
        )
        logged = float(row["max_concurrency_x"])
        assert low * 0.99 - 0.005 <= logged <= high * 1.01 + 0.005, row["id"]
    assert len(rows) >= 8


def test_the_refused_need_is_the_logged_one() -> None:
    rows = rows_with("required_kv_gib_for_max_len", "max_model_len")
    for row in rows:
        needed = pool_of(row).bytes_for(int(row["max_model_len"])) / GIB
        assert needed == pytest.approx(float(row["required_kv_gib_for_max_len"]), abs=0.006), row[
            "id"
        ]
    assert len(rows) >= 4


def test_the_longest_context_is_what_vllm_recommends() -> None:
    rows = rows_with("reported_est_max_len", "available_kv_gib", "max_model_len")
    for row in rows:
        held, n_bytes, most = pool_of(row), available(row), int(row["max_model_len"])
        low, high = (held.longest_context(int(n_bytes + by), most) for by in (-ROUNDING, ROUNDING))
        assert low <= int(row["reported_est_max_len"]) <= high, row["id"]
    assert len(rows) >= 4
