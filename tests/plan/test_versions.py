"""Which rules hold in which version of vLLM."""

from dataclasses import replace

import pytest

from serve.errors import SettingsError
from serve.plan.versions import NEWEST, OLDEST, SHIPPED, rules
from serve.shape import Experts, Heads, Latent, Layer
from tests.plan.kv_models import GQA, MLA, SPARSE, model

GIB = 2**30


@pytest.mark.parametrize(
    ("version", "found"),
    [
        (None, SHIPPED),
        ("0.32", (0, 32)),
        ("0.32.0", (0, 32)),
        ("v0.26.1", (0, 26)),
        ("0.15.2rc1", (0, 15)),
        ("0.11.0.post2", (0, 11)),
        ("0.32.0+cpu", (0, 32)),
        ("0.33.1.dev12+gabc", NEWEST),
        ("0.99", NEWEST),
        ("1.0", NEWEST),
        ("0.5.4", OLDEST),
    ],
)
def test_a_version_is_read_and_clamped_to_what_is_known(
    version: str | None, found: tuple[int, int]
) -> None:
    assert rules(version).version == found


@pytest.mark.parametrize("version", ["", "new", "32", "0.x", "0.32,1", "-0.32", "0.32 0", "٠.٣٢"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(SettingsError) as caught:
        rules(version)
    assert caught.value.key == "engine-version"
    assert caught.value.suggestion == "0.32"


# Rule → (the last version without it, the first with it), from the published wheels.
@pytest.mark.parametrize(
    ("rule", "without", "first"),
    [
        ("are_windows_recycled", "0.8.5", "0.9.2"),
        ("are_graphs_subtracted", "0.19.1", "0.20.0"),
        ("are_tokens_by_concurrency", "0.19.1", "0.20.2"),
        ("are_states_kept_for_prefixes", "0.25.1", "0.26.0"),
        ("are_batches_in_flight", "0.25.1", "0.26.0"),
        ("is_null_block_reserved", "0.28.0", "0.29.0"),
        ("is_pipeline_overlapped", "0.28.0", "0.29.0"),
        ("is_need_of_whole_model", "0.13.0", "0.14.1"),
    ],
)
def test_rules_begin_with_their_version(rule: str, without: str, first: str) -> None:
    assert not getattr(rules(without), rule)
    assert getattr(rules(first), rule)


def test_rules_end_with_their_version() -> None:
    assert rules("0.7.3").are_prompts_whole and not rules("0.8.5").are_prompts_whole
    assert rules("0.16.0").is_need_of_whole_model and not rules("0.17.1").is_need_of_whole_model


@pytest.mark.parametrize(
    ("version", "share", "slack"),
    [("0.8.5", 0.9, 1.0), ("0.12.0", 0.9, 1.25), ("0.18.1", 0.9, 1.5), ("0.20.0", 0.92, 1.5)],
)
def test_figures_by_version(version: str, share: float, slack: float) -> None:
    assert rules(version).default_utilization == share
    assert rules(version).group_slack == slack


@pytest.mark.parametrize(
    ("version", "gib", "name", "limits"),
    [
        ("0.32", 79.18, "NVIDIA H100 80GB HBM3", (8192, 1024)),
        ("0.32", 79.25, "NVIDIA A100-SXM4-80GB", (2048, 256)),
        ("0.8.5", 79.25, "NVIDIA A100-SXM4-80GB", (8192, 1024)),
        ("0.32", 23.5, "NVIDIA GeForce RTX 4090", (2048, 256)),
        ("0.32", 178.0, "NVIDIA B200", (16384, 1024)),
        ("0.27", 178.0, "NVIDIA B200", (8192, 1024)),
        ("0.32", 121.7, "NVIDIA GB10", (8192, 1024)),
        ("0.33", 121.7, "NVIDIA GB10", (2048, 256)),
    ],
)
def test_batch_limits_of_a_card(
    version: str, gib: float, name: str, limits: tuple[int, int]
) -> None:
    assert rules(version).batch_limits(int(gib * GIB), name, "cuda", 1) == limits


def test_batch_limits_of_a_cpu_grow_with_its_ranks() -> None:
    assert rules(None).batch_limits(64 * GIB, "a CPU", "cpu", 1) == (2048, 128)
    assert rules(None).batch_limits(64 * GIB, "a CPU", "cpu", 2) == (4096, 256)


@pytest.mark.parametrize(
    ("attention", "version", "cpu", "cuda"),
    [
        (GQA, "0.32", 128, 16),
        (MLA, "0.32", 16, 16),
        (MLA, "0.11", 128, 64),
        (SPARSE, "0.32", 16, 64),
    ],
)
def test_blocks_where_nobody_asks_for_a_size(
    attention: Heads | Latent, version: str, cpu: int, cuda: int
) -> None:
    geometry = model(attention)
    assert rules(version).block_tokens(geometry, "cpu", "auto") == cpu
    assert rules(version).block_tokens(geometry, "cuda", "auto") == cuda


@pytest.mark.parametrize(
    ("version", "has_amx", "tokens"),
    [("0.27", False, 128), ("0.28", True, 16), ("0.29", False, 16), ("0.29", True, 128)],
)
def test_blocks_of_mla_on_a_cpu_follow_its_kernel(version: str, has_amx: bool, tokens: int) -> None:
    assert rules(version).block_tokens(model(MLA), "cpu", "auto", has_amx) == tokens


def test_a_cpu_does_not_schedule_ahead() -> None:
    assert rules("0.32").batches_in_flight(model(GQA), "cpu", 1) == 1
    assert rules("0.32").batches_in_flight(model(GQA), "cuda", 1) == 2


@pytest.mark.parametrize(
    ("version", "dense", "mixture"),
    [("0.25", 1, 1), ("0.26", 3, 2), ("0.28", 3, 2), ("0.29", 3, 3)],
)
def test_batches_in_flight_of_two_stages(version: str, dense: int, mixture: int) -> None:
    experts = replace(model(GQA), layers=(Layer(GQA, Experts(8, 2, 1024)),))
    assert rules(version).batches_in_flight(model(GQA), "cuda", 2) == dense
    assert rules(version).batches_in_flight(experts, "cuda", 2) == mixture
