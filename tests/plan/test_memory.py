"""The sums, against vLLM's own arithmetic and against what vLLM logged on real cards."""

import csv
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.plan.geometry import read_geometry
from serve.plan.memory import (
    CUDA_GRAPH_BYTES,
    GIB,
    WORKSPACE_BYTES,
    KvCache,
    activation_bytes,
    batch_limits,
    weights_bytes_per_rank,
)
from tests.plan.known import DEEPSEEK_V2_LITE, FACTS, LLAMA_8B, QWEN3_8B, QWEN3_235B_FP8


def test_vllms_own_sum_for_qwen3_235b_on_four_cards() -> None:
    """94 layers, a KV head per rank, bf16, blocks of 16: pages of 8192 B (kv_cache_utils.py)."""
    per_token = read_geometry(QWEN3_235B_FP8).kv_bytes_per_token(4)
    kv = KvCache(per_token, 16)
    available = int(8.11 * GIB)
    assert kv.block_bytes == 94 * 8192
    assert available // kv.block_bytes == 11_308
    assert kv.tokens_in(available, 40_960) == 180_928
    assert kv.tokens_in(available, 40_960) / 40_960 == pytest.approx(4.4172, abs=1e-4)


def test_one_request_needs_whole_blocks_and_the_null_block() -> None:
    kv = KvCache(bytes_per_token=10, block_tokens=16)
    assert kv.bytes_for(16) == 2 * 160
    assert kv.bytes_for(17) == 3 * 160
    assert kv.longest_context(3 * 160) == 32
    assert kv.longest_context(100) == 0
    assert kv.whole_blocks(500) == 480
    assert kv.whole_blocks(-500) == 0


@settings(deadline=None)
@given(st.integers(1, 10**6), st.sampled_from([16, 128]), st.integers(1, 10**6))
def test_what_a_context_needs_holds_it(per_token: int, block: int, context: int) -> None:
    kv = KvCache(per_token, block)
    size = kv.bytes_for(context)
    assert kv.longest_context(size) >= context
    assert kv.whole_blocks(size) == size
    assert kv.tokens_in(size, context) >= context
    assert kv.longest_context(size - 1) < context + block


@pytest.mark.parametrize(
    ("total_gib", "name", "expected"),
    [
        (179.1, "NVIDIA B200", (16384, 1024)),
        (139.8, "NVIDIA H200", (8192, 1024)),
        (79.18, "NVIDIA H100 80GB HBM3", (8192, 1024)),
        (79.15, "NVIDIA A100-SXM4-80GB", (2048, 256)),
        (44.42, "NVIDIA L40S", (2048, 256)),
    ],
)
def test_vllms_batch_limits(total_gib: float, name: str, expected: tuple[int, int]) -> None:
    assert batch_limits(int(total_gib * GIB), name) == expected


def test_the_rope_cache_is_in_the_weights() -> None:
    """Llama-3.1-8B: 14.957 GiB of tensors, 14.9889 GiB in vLLM's log (vllm-project/vllm#17122)."""
    loaded = weights_bytes_per_rank(read_geometry(LLAMA_8B), int(14.957 * GIB), 1)
    assert loaded / GIB == pytest.approx(14.9889, abs=0.002)


def test_mla_keeps_absorbed_copies() -> None:
    shape = read_geometry(DEEPSEEK_V2_LITE)
    copies = 27 * 16 * (128 + 128) * 512 * 2
    rope = 163840 * 64 * 2
    assert weights_bytes_per_rank(shape, 0, 1) == copies + rope
    assert weights_bytes_per_rank(shape, 0, 8) == copies // 8 + rope


# Measured on an H100 with vLLM 0.11 (1024 sequences), and on an L40S (256 sequences).
@pytest.mark.parametrize(
    ("config", "batch", "measured_gib"),
    [
        pytest.param(LLAMA_8B, (8192, 1024), 4.76, id="Llama-3.1-8B"),
        pytest.param(QWEN3_8B, (8192, 1024), 5.56, id="Qwen3"),
        pytest.param(LLAMA_8B | {"vocab_size": 201088}, (8192, 1024), 7.38, id="gpt-oss"),
        pytest.param(QWEN3_235B_FP8, (2048, 256), 1.4, id="Qwen3-235B on L40S"),
    ],
)
def test_activations_are_within_two_percent_of_what_was_measured(
    config: dict[str, Any], batch: tuple[int, int], measured_gib: float
) -> None:
    peak = activation_bytes(read_geometry(config), batch, 1)
    assert peak / GIB == pytest.approx(measured_gib, rel=0.02)


def _rows() -> list[dict[str, str]]:
    path = FACTS / "memory_ground_truth.csv"
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def _config(row: dict[str, str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FACTS / "configs" / row["config_file"]).read_text())
    return content


# Every layer in full, no draft model (row 9), no pipeline or context parallelism, and a log line
# that gives both the memory and the tokens.
_KV_ROWS = [
    row
    for row in _rows()
    if row["available_kv_gib"]
    and row["gpu_kv_tokens"]
    and row["attention"] in ("GQA", "MLA")
    and row["config_file"]
    and not row["pp"]
    and "context-parallel" not in row["other_flags"]
    and "EAGLE" not in row["model"]
]


@pytest.mark.parametrize("row", _KV_ROWS, ids=lambda row: f"row {row['id']} {row['model']}")
def test_kv_tokens_of_real_start_ups(row: dict[str, str]) -> None:
    """Within 1 %, or 2 % where the log's GiB are of another rank than its tokens (row 19)."""
    item_bytes = 1 if row["kv_cache_dtype"].startswith("fp8") else 2
    per_token = read_geometry(_config(row)).kv_bytes_per_token(int(row["tp"] or 1), item_bytes)
    context = int(row["max_model_len"])
    tokens = KvCache(per_token, 16).tokens_in(int(float(row["available_kv_gib"]) * GIB), context)
    assert tokens == pytest.approx(
        int(row["gpu_kv_tokens"]), rel=0.02 if row["id"] == "19" else 0.01
    )


_REFUSED_ROWS = [
    row
    for row in _rows()
    if row["reported_est_max_len"] and row["available_kv_gib"] and row["attention"] == "GQA"
]


@pytest.mark.parametrize("row", _REFUSED_ROWS, ids=lambda row: f"row {row['id']} {row['model']}")
def test_the_longest_context_of_real_refusals(row: dict[str, str]) -> None:
    """vLLM's own estimate in its refusal; ours is shorter by the null block only."""
    item_bytes = 1 if row["kv_cache_dtype"].startswith("fp8") else 2
    per_token = read_geometry(_config(row)).kv_bytes_per_token(int(row["tp"] or 1), item_bytes)
    longest = KvCache(per_token, 16).longest_context(int(float(row["available_kv_gib"]) * GIB))
    assert longest == pytest.approx(int(row["reported_est_max_len"]), rel=0.005)
    needed = KvCache(per_token, 16).bytes_for(int(row["max_model_len"])) / GIB
    assert needed == pytest.approx(float(row["required_kv_gib_for_max_len"]), rel=0.005)


_BUDGET_ROWS = [row for row in _rows() if row["id"] in ("1", "3", "4")]


@pytest.mark.parametrize("row", _BUDGET_ROWS, ids=lambda row: str(row["model"]))
def test_the_kv_memory_of_real_start_ups_is_foreseen(row: dict[str, str]) -> None:
    """From the card's size and the weights alone: never too much, and at most 5 % too little."""
    total = float(row["gpu_total_gib"]) * GIB
    batch = batch_limits(int(total), row["gpu"])
    charged = (
        float(row["weights_gib_per_gpu"]) * GIB
        + activation_bytes(read_geometry(_config(row)), batch, 1)
        + CUDA_GRAPH_BYTES
        + WORKSPACE_BYTES
    )
    foreseen = (float(row["gpu_memory_utilization"]) * total - charged) / GIB
    measured = float(row["available_kv_gib"])
    assert 0.95 * measured <= foreseen <= measured


def test_the_published_facts_are_there() -> None:
    if not FACTS.exists():
        pytest.skip("the folder of model facts is not beside this checkout")
    assert len(_KV_ROWS) == 8
    assert len(_REFUSED_ROWS) == 4
    assert len(_BUDGET_ROWS) == 3
