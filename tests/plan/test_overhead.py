"""Activations, CUDA graphs and the rest, against what real engines logged."""

from dataclasses import replace
from typing import Any

import pytest

from serve.hardware import imagine
from serve.plan.overhead import (
    activations,
    are_graphs_charged,
    forward_bytes_per_token,
    graphs,
    graphs_captured,
    other,
    outside_bytes,
)
from serve.plan.plan import Term
from serve.shape import Parallel
from tests.plan import known
from tests.plan.kv_models import layout

GIB = 2**30
QWEN25_05B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16", "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "hidden_size": 896,
    "intermediate_size": 4864, "vocab_size": 151936, "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}  # fmt: skip
GRAPHS = "CUDA graphs"


@pytest.mark.parametrize(
    ("config", "version", "tokens", "sequences", "logged_gib"),
    [
        (known.LLAMA_8B, "0.11", 8192, 1024, 4.76),
        (known.LLAMA_8B, "0.8", 2048, 256, 1.19),
        (known.QWEN3_8B, "0.10", 2048, 256, 1.4),
        (known.QWEN3_8B, "0.11", 8192, 1024, 5.56),
        (QWEN25_05B, "0.28", 8192, 256, 0.25),
    ],
)
def test_activations_are_those_of_the_log(
    config: dict[str, Any], version: str, tokens: int, sequences: int, logged_gib: float
) -> None:
    batch = layout(version, max_num_batched_tokens=tokens, max_num_seqs=sequences)
    term = activations(known.shape(config), batch, is_last_stage=True)
    assert term.n_bytes / GIB == pytest.approx(logged_gib, rel=0.03)
    assert term.low_bytes <= logged_gib * GIB <= term.high_bytes
    assert term.basis == "estimated"


def test_the_sampler_runs_on_the_last_stage_only() -> None:
    llama, batch = known.shape(known.LLAMA_8B), layout("0.11", pipeline=2)
    first, last = (activations(llama, batch, is_last) for is_last in (False, True))
    assert first.n_bytes == 8192 * forward_bytes_per_token(llama, batch.parallel)
    assert last.n_bytes > 4 * first.n_bytes


def test_the_second_runner_needs_little_for_the_sampler() -> None:
    llama = known.shape(known.LLAMA_8B)
    now, before = (activations(llama, layout(version), True) for version in ("0.32", "0.16"))
    assert now.n_bytes == 8192 * forward_bytes_per_token(llama, Parallel())
    assert before.n_bytes > 4 * now.n_bytes


@pytest.mark.parametrize(("config", "version"), [(known.LLAMA_8B, "0.25"), (QWEN25_05B, "0.28")])
def test_dense_models_had_the_second_runner_first(config: dict[str, Any], version: str) -> None:
    dense, experts = known.shape(config), known.shape(known.QWEN3_235B_FP8)
    tight = layout(version, max_num_batched_tokens=256)
    assert activations(dense, tight, True).n_bytes == 256 * dense.vocab * 2
    assert activations(experts, tight, True).n_bytes == 256 * experts.vocab * 16
    assert not are_graphs_charged(dense, tight)
    assert are_graphs_charged(experts, tight)


def test_a_whole_prompt_is_profiled_by_the_oldest() -> None:
    llama = known.shape(known.LLAMA_8B)
    short, long = (layout("0.6", context_tokens=tokens) for tokens in (8192, 131072))
    assert activations(llama, long, True).n_bytes > 2 * activations(llama, short, True).n_bytes


def test_tensor_ranks_share_the_live_tensors_but_not_the_residual() -> None:
    llama = known.shape(known.LLAMA_8B)
    alone, shared = (forward_bytes_per_token(llama, Parallel(tensor)) for tensor in (1, 8))
    assert alone == 2 * (2 * 4096 + 3 * 14336)
    assert shared == 2 * (2 * 4096 + 3 * 14336 // 8)


def test_experts_give_back_whole_rows_for_every_choice() -> None:
    qwen = known.shape(known.QWEN3_235B_FP8)
    spread = forward_bytes_per_token(qwen, Parallel(4, is_expert=True))
    assert forward_bytes_per_token(qwen, Parallel(4)) == 2 * (2 * 4096 + 8 * (4096 + 384))
    assert spread == 2 * (2 * 4096 + 8 * (4096 + 1536))


@pytest.mark.parametrize("config", [known.DEEPSEEK_V2_LITE, known.CHATGLM_9B, known.SMOLLM2])
def test_every_kind_of_layer_has_a_width(config: dict[str, Any]) -> None:
    geometry = known.shape(config)
    assert forward_bytes_per_token(geometry, Parallel()) > 4 * geometry.hidden


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [(1, 1), (2, 2), (4, 3), (8, 4), (16, 5), (32, 7), (64, 11), (128, 19), (256, 35), (512, 51)],
)
def test_as_many_graphs_as_the_log_says(sequences: int, expected: int) -> None:
    """ "Profiling CUDA graph memory: PIECEWISE=51 (largest=512), FULL=35 (largest=256)"."""
    assert graphs_captured(sequences) == expected
    assert graphs_captured(max(sequences, 512) * 2) == 51


def test_graphs_lie_around_those_of_the_logs() -> None:
    llama, experts = known.shape(known.LLAMA_8B), known.shape(known.QWEN3_235B_FP8)
    few, many = (graphs(llama, layout(max_num_seqs=count)) for count in (8, 256))
    large = graphs(experts, layout(max_num_seqs=1024))
    for term, logged_gib in ((few, 0.42), (many, 0.42), (many, 1.2), (large, 5.0)):
        assert term.low_bytes <= logged_gib * GIB <= term.high_bytes
    assert few.n_bytes < many.n_bytes < large.n_bytes


@pytest.mark.parametrize("changes", [{"is_eager": True}, {"version": "0.11"}])
def test_no_graphs_where_none_are_charged(changes: dict[str, Any]) -> None:
    asked = replace(layout(), **changes)
    assert graphs(known.shape(known.LLAMA_8B), asked) == Term(GRAPHS, 0, 0, 0, "exact")


def test_stages_capture_their_own_layers() -> None:
    llama = known.shape(known.LLAMA_8B)
    whole, half = (graphs(llama, layout(pipeline=stages)).n_bytes for stages in (1, 2))
    assert half < whole < 2 * half


@pytest.mark.parametrize(
    ("gpus", "tensor", "version", "logged_gib"),
    [
        ("H100", 1, "0.11", 0.13),
        ("L40S", 4, "0.10", 0.21),
        ("A100", 1, "0.31", 0.27),
        ("H200", 2, "0.11", 1.38),
        ("B200", 4, "0.26", 0.95),
        ("GB10", 1, "0.27", 2.23),
    ],
)
def test_the_rest_lies_around_that_of_the_log(
    gpus: str, tensor: int, version: str, logged_gib: float
) -> None:
    (gpu,) = imagine(gpus).gpus
    term = other(layout(version, tensor), gpu)
    assert term.low_bytes <= logged_gib * GIB <= term.high_bytes


def test_a_card_without_a_data_sheet_has_the_least() -> None:
    unknown, (linked,) = known.card(), imagine("H100").gpus
    pair = layout("0.32", 2)
    assert other(pair, unknown) == other(layout("0.32"), unknown) == other(layout("0.32"), linked)
    assert other(pair, linked).n_bytes > other(pair, unknown).n_bytes


@pytest.mark.parametrize("parallel", [Parallel(2), Parallel(pipeline=2), Parallel(data=2)])
def test_several_cards_hold_buffers_between_them(parallel: Parallel) -> None:
    assert outside_bytes(parallel) > outside_bytes(Parallel()) > 0
