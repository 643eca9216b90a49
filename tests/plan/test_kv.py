"""Bytes per block, blocks per request, and the two figures of vLLM's log."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import SettingsError
from serve.plan.kv import Pool, pool
from serve.shape import Attention, Heads, Latent
from tests.plan.kv_models import DELTA, GQA, MLA, SPARSE, WHOLE, WINDOW, layout, model

GIB = 2**30
OSS = (WINDOW, WHOLE) * 18


# (layers, KV heads, head size) → bytes per token on one rank of 1, 2, 4, 8.
@pytest.mark.parametrize(
    ("layers", "kv_heads", "head_dim", "by_rank"),
    [
        pytest.param(24, 2, 64, (12288, 6144, 6144, 6144), id="Qwen2.5-0.5B"),
        pytest.param(28, 4, 128, (57344, 28672, 14336, 14336), id="Qwen2.5-7B"),
        pytest.param(36, 8, 128, (147456, 73728, 36864, 18432), id="Qwen3-8B"),
        pytest.param(64, 8, 128, (262144, 131072, 65536, 32768), id="Qwen3-32B"),
        pytest.param(32, 8, 128, (131072, 65536, 32768, 16384), id="Llama-3.1-8B"),
        pytest.param(40, 2, 128, (40960, 20480, 20480, 20480), id="GLM-4-9B"),
        pytest.param(32, 4, 128, (65536, 32768, 16384, 16384), id="Yi-1.5-6B"),
        pytest.param(48, 4, 128, (98304, 49152, 24576, 24576), id="Yi-1.5-9B"),
        pytest.param(60, 8, 128, (245760, 122880, 61440, 30720), id="Yi-1.5-34B"),
    ],
)
def test_bytes_per_token_of_known_models(
    layers: int, kv_heads: int, head_dim: int, by_rank: tuple[int, ...]
) -> None:
    geometry = model(*[Heads(32, kv_heads, head_dim, head_dim)] * layers)
    found = [pool(geometry, 0, layout(tensor=size), "cuda") for size in (1, 2, 4, 8)]
    assert tuple(each.bytes_per_token for each in found) == by_rank
    assert tuple(each.bytes_per_block for each in found) == tuple(16 * size for size in by_rank)


@pytest.mark.parametrize(("layers", "bf16"), [(27, 31104), (60, 69120), (61, 70272)])
@pytest.mark.parametrize("tensor", [1, 8])
def test_every_rank_holds_the_whole_latent(layers: int, bf16: int, tensor: int) -> None:
    geometry = model(*[MLA] * layers)
    found = pool(geometry, 0, layout(tensor=tensor), "cuda")
    packed = pool(geometry, 0, layout(tensor=tensor, kv_dtype="fp8"), "cuda")
    assert (found.bytes_per_token, packed.bytes_per_token) == (bf16, bf16 // 2)


def test_gpt_oss_as_it_was_logged_before_0_20() -> None:
    """The public log says 1,043,264 tokens and 15.66x at 35.82 GiB."""
    old = layout("0.11", tensor=2, max_num_batched_tokens=2048)
    found = pool(model(*OSS), 0, old, "cuda")
    available = int(35.82 * GIB)
    assert (found.groups, found.bytes_per_block) == (2, 294912)
    assert found.blocks_in(available) == 130416
    assert found.blocks_for(131072) == 8192 + 137
    assert found.tokens_in(available, 131072) == 1043328
    assert f"{found.concurrency_in(available, 131072):.2f}" == "15.66"


def test_gpt_oss_as_it_is_logged_now() -> None:
    found = pool(model(*OSS), 0, layout(tensor=2), "cuda")
    available = int(35.82 * GIB)
    assert found.blocks_for(131072) == 8192 + 1033
    assert found.tokens_in(available, 131072) == 1852995
    assert found.bytes_for(131072) == 2720563200 + 294912  # and the null block


def test_qwen3_235b_on_four_ranks() -> None:
    found = pool(model(*[Heads(64, 4, 128, 128)] * 94), 0, layout("0.9", tensor=4), "cuda")
    available = int(8.11 * GIB)
    assert found.blocks_in(available) == 11308
    assert found.tokens_in(available, 40960) == 180928
    assert found.concurrency_in(available, 40960) == pytest.approx(4.4172, abs=1e-4)


def test_values_may_be_narrower_than_keys() -> None:
    found = pool(model(Heads(8, 2, 192, 128)), 0, layout(), "cuda")
    assert found.bytes_per_token == 2 * (192 + 128) * 2


@pytest.mark.parametrize(("version", "spare"), [("0.28", 0), ("0.29", 1), ("0.33", 1)])
def test_the_check_leaves_the_null_block_out_since_0_29(version: str, spare: int) -> None:
    found = pool(model(GQA), 0, layout(version), "cuda")
    assert found.bytes_for(4096) == (256 + spare) * found.bytes_per_block
    assert found.bytes_for(4096, 2) == (512 + 1) * found.bytes_per_block


@pytest.mark.parametrize(("version", "batches"), [("0.25", 1), ("0.26", 2), ("0.32", 2)])
def test_a_window_holds_the_batches_in_flight(version: str, batches: int) -> None:
    found = pool(model(WINDOW), 0, layout(version), "cuda")
    assert found.windows == ((16, 127 + batches * 8192),)
    assert found.blocks_for(131072) == -(-(127 + batches * 8192) // 16) + 1
    assert found.blocks_for(100) == 7 + 1
    assert found.bytes_per_token == 0


def test_windows_were_kept_whole_once() -> None:
    found = pool(model(*OSS), 0, layout("0.8.5"), "cuda")
    assert (found.groups, found.windows) == (1, ())


@pytest.mark.parametrize(
    ("version", "windows", "full", "groups", "of_size"),
    [
        ("0.11", 12, 13, 3, 12),
        ("0.12", 12, 13, 2, 13),
        ("0.17", 5, 7, 3, 5),
        ("0.18", 5, 7, 2, 7),
        ("0.32", 2, 3, 3, 2),
        ("0.32", 5, 1, 6, 1),
        ("0.32", 20, 8, 4, 8),
    ],
)
def test_groups_are_as_large_as_the_rarest_kind_or_slightly_larger(
    version: str, windows: int, full: int, groups: int, of_size: int
) -> None:
    found = pool(model(*[WINDOW] * windows, *[WHOLE] * full), 0, layout(version), "cuda")
    assert found.groups == groups
    assert found.bytes_per_block == of_size * 16 * 8 * 128 * 2


def test_a_smaller_page_gets_more_tokens() -> None:
    narrow = Heads(8, 2, 64, 64, window=1024)
    found = pool(model(narrow, Heads(8, 2, 128, 128)), 0, layout(), "cuda")
    assert found.windows[0][0] == 32 and found.whole == (16,)
    assert found.bytes_per_block == 16 * 2 * 256 * 2


def test_a_page_that_does_not_divide_is_padded() -> None:
    narrow = Heads(8, 2, 96, 96, window=1024)
    found = pool(model(narrow, Heads(8, 2, 128, 128)), 0, layout(), "cuda")
    assert found.windows[0][0] == 16
    assert found.bytes_per_block == 16 * 2 * 256 * 2


def test_full_layers_of_unlike_widths_share_a_group() -> None:
    found = pool(model(Heads(8, 2, 64, 64), Heads(8, 2, 96, 96)), 0, layout(), "cuda")
    assert (found.groups, found.bytes_per_token) == (1, 2 * 320 * 2)


@pytest.mark.parametrize(
    ("kv_dtype", "per_layer"), [("auto", 1152 + 132), ("fp8", 656 + 132), ("fp8_ds_mla", 656 + 132)]
)
def test_the_indexer_has_a_cache_of_its_own(kv_dtype: str, per_layer: int) -> None:
    wanted = layout(kv_dtype=kv_dtype, block_tokens=64)
    found = pool(model(*[SPARSE] * 61), 0, wanted, "cuda")
    assert (found.groups, found.bytes_per_token) == (1, 61 * per_layer)


def test_layers_that_share_an_indexer_are_written_in_its_format() -> None:
    shared = Latent(128, 512, 64, 128, 128, 1536)
    found = pool(model(SPARSE, shared), 0, layout(kv_dtype="fp8"), "cuda")
    assert found.bytes_per_token == 656 + 132 + 656


@pytest.mark.parametrize(("version", "states"), [("0.25", 1), ("0.26", 2)])
def test_linear_layers_raise_the_block_and_keep_states(version: str, states: int) -> None:
    """Qwen3-Next-80B: 1,097,728 bytes of state, 2,048 bytes per token: blocks of 544 tokens."""
    layers: tuple[Attention, ...] = (DELTA, DELTA, DELTA, Heads(16, 2, 256, 256))
    found = pool(model(*layers * 12), 0, layout(version), "cuda")
    assert found.block_tokens == 544
    assert found.bytes_per_block == 12 * 544 * 2048
    assert found.fixed_blocks == 3 * states
    assert found.blocks_for(54400) == 100 + 3 * states
    assert found.bytes_per_token == 12 * 2048


def test_a_state_may_have_a_dtype_of_its_own() -> None:
    wide = replace(DELTA, state_dtype="float32")
    found = pool(model(wide, Heads(16, 2, 256, 256)), 0, layout(), "cuda")
    assert found.block_tokens == 1056


def test_context_parallel_ranks_share_the_tokens() -> None:
    geometry = model(*[MLA] * 61)
    alone = pool(geometry, 0, layout("0.11", tensor=8, block_tokens=64), "cuda")
    shared = pool(geometry, 0, layout("0.11", tensor=8, block_tokens=64, decode_context=8), "cuda")
    available = int(46.8 * GIB)
    assert shared.bytes_per_token * 8 == alone.bytes_per_token
    assert shared.tokens_in(available, 262144) == 8 * alone.tokens_in(available, 262144)
    assert shared.blocks_for(262144) * 8 == alone.blocks_for(262144)


def test_every_stage_holds_its_own_layers() -> None:
    geometry = model(*[MLA] * 27)
    stages = [pool(geometry, stage, layout(pipeline=2), "cuda") for stage in (0, 1)]
    assert [each.bytes_per_token for each in stages] == [14 * 1152, 13 * 1152]
    assert len({each.blocks_for(1024) for each in stages}) == 1


def test_stages_of_a_hybrid_get_alike_of_each_group() -> None:
    stages = [pool(model(*OSS), stage, layout(pipeline=2), "cuda") for stage in (0, 1)]
    assert [each.bytes_per_block for each in stages] == [9 * 16 * 8 * 128 * 2] * 2


@pytest.mark.parametrize(("version", "times"), [("0.13", 1), ("0.15", 2), ("0.17", 1)])
def test_the_check_once_counted_all_layers_on_every_stage(version: str, times: int) -> None:
    found = pool(model(*[GQA] * 48), 0, layout(version, pipeline=2), "cuda")
    assert found.bytes_for(1600) == times * 100 * found.bytes_per_block


def test_a_cpu_keeps_states_in_float32() -> None:
    found = pool(model(DELTA, Heads(16, 2, 256, 256)), 0, layout(block_tokens=128), "cpu")
    assert found.block_tokens == 1152


def test_the_checkpoint_may_ask_for_fp8_itself() -> None:
    geometry = model(GQA, kv_dtype="fp8")
    assert pool(geometry, 0, layout(), "cuda").bytes_per_token == 2048
    assert pool(geometry, 0, layout(kv_dtype="bfloat16"), "cuda").bytes_per_token == 4096


def test_a_float32_model_has_a_float32_cache() -> None:
    found = pool(model(GQA, dtype="float32"), 0, layout(), "cpu")
    assert found.bytes_per_token == 8192


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(SettingsError, match="fp7") as caught:
        pool(model(GQA), 0, layout(kv_dtype="fp7"), "cuda")
    assert caught.value.key == "kv-cache-dtype"


def test_no_room_is_no_tokens() -> None:
    found = pool(model(GQA), 0, layout(), "cuda")
    for n_bytes in (-GIB, 0, found.bytes_per_block - 1):
        assert found.blocks_in(n_bytes) == 0
        assert found.tokens_in(n_bytes, 4096) == 0
        assert found.concurrency_in(n_bytes, 4096) == 0.0
        assert found.longest_context(n_bytes, 4096) == 0


KINDS: tuple[Attention, ...] = (GQA, WINDOW, WHOLE, MLA, SPARSE, DELTA)
POOLS = st.builds(
    lambda kinds, version, device, block: pool(
        model(*kinds), 0, layout(version, block_tokens=block), device
    ),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    st.sampled_from(["0.8", "0.11", "0.16", "0.20", "0.26", "0.32", "0.33"]),
    st.sampled_from(["cpu", "cuda"]),
    st.sampled_from([16, 64, 128]),
)
SIZES = st.integers(0, 64 * GIB)
CONTEXTS = st.integers(1, 2**20)


@given(POOLS, SIZES, CONTEXTS)
def test_the_longest_context_is_the_longest_that_fits(
    found: Pool, n_bytes: int, at_most: int
) -> None:
    longest = found.longest_context(n_bytes, at_most)
    assert 0 <= longest <= at_most
    if longest:
        assert found.bytes_for(longest) <= n_bytes
    if longest < at_most:
        assert found.bytes_for(longest + 1) > n_bytes


@given(POOLS, SIZES, SIZES, CONTEXTS)
def test_more_memory_never_holds_less(found: Pool, some: int, more: int, context: int) -> None:
    assert found.blocks_in(some) <= found.blocks_in(some + more)
    assert found.tokens_in(some, context) <= found.tokens_in(some + more, context)
    assert found.concurrency_in(some, context) <= found.concurrency_in(some + more, context)


@given(POOLS, CONTEXTS, CONTEXTS, st.integers(1, 64))
def test_more_context_or_more_requests_never_need_less(
    found: Pool, context: int, more: int, requests: int
) -> None:
    assert found.bytes_for(context, requests) <= found.bytes_for(context + more, requests)
    assert found.bytes_for(context, requests) < found.bytes_for(context, requests + 1)


@given(POOLS, CONTEXTS, st.integers(1, 32))
def test_what_is_said_to_be_needed_holds_so_many_requests(
    found: Pool, context: int, requests: int
) -> None:
    assert found.concurrency_in(found.bytes_for(context, requests), context) >= requests
