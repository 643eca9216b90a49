"""Against vLLM's own functions, version by version.

The figures are what `get_kv_cache_configs` and `get_max_concurrency_for_kv_cache_config` of the
published wheels (0.9.2 to 0.33.0) return for layers of 8 KV heads of 64, in bf16, blocks of 16, no
ranks, two batches in flight where the version counts them.
"""

import pytest

from serve.plan.kv import Pool, pool
from serve.shape import Attention, Heads
from tests.plan.kv_models import MLA, SPARSE, layout, model

GIB = 2**30
LAYER = {"s": Heads(8, 8, 64, 64, window=128), "f": Heads(8, 8, 64, 64)}
OLD = ("0.9.2", "0.10.2", "0.11.0")
PADDED = ("0.12.0", "0.13.0", "0.14.1", "0.15.1", "0.16.0", "0.17.1")
PADDED_MORE = ("0.18.1", "0.19.1", "0.20.2", "0.21.0", "0.22.1", "0.23.0", "0.24.0", "0.25.1")
BATCHES = ("0.26.0", "0.27.0", "0.28.0")
NULL_BLOCK = ("0.29.0", "0.30.0", "0.31.0", "0.32.0", "0.33.0")
ALL = OLD + PADDED + PADDED_MORE + BATCHES + NULL_BLOCK


def held(kinds: str, version: str, batched: int) -> Pool:
    geometry = model(*(LAYER[kind] for kind in kinds))
    return pool(geometry, 0, layout(version, max_num_batched_tokens=batched), "cuda")


def found(each: Pool, n_bytes: int, context: int) -> tuple[int, float, int]:
    return each.blocks_in(n_bytes), each.concurrency_in(n_bytes, context), each.groups


@pytest.mark.parametrize("version", ALL)
def test_one_kind_of_layers(version: str) -> None:
    figures = found(held("f" * 30, version, 2048), 3 * GIB, 33333)
    assert figures == (3276, 1.5719769673704416, 1)


@pytest.mark.parametrize("version", ALL)
def test_as_many_sliding_as_full(version: str) -> None:
    concurrency = 1.9733333333333334 if version in BATCHES + NULL_BLOCK else 2.089291862733846
    assert found(held("sf" * 18, version, 8192), 10 * GIB, 131072) == (18204, concurrency, 2)


@pytest.mark.parametrize("version", ALL)
def test_five_sliding_to_one(version: str) -> None:
    concurrency = 7.569165786694826 if version in BATCHES + NULL_BLOCK else 8.267589388696654
    assert found(held("sssssf" * 4, version, 2048), 7 * GIB, 100001) == (57344, concurrency, 6)


@pytest.mark.parametrize(
    ("versions", "figures"),
    [
        (OLD, (27306, 1.6528055202469585, 3)),
        (PADDED + PADDED_MORE, (25206, 3.026293672709809, 2)),
        (BATCHES + NULL_BLOCK, (25206, 2.980489535296204, 2)),
    ],
)
def test_twelve_sliding_to_thirteen(
    versions: tuple[str, ...], figures: tuple[int, float, int]
) -> None:
    for version in versions:
        assert found(held("s" * 12 + "f" * 13, version, 2048), 10 * GIB, 131072) == figures


@pytest.mark.parametrize(
    ("versions", "figures"),
    [
        (OLD + PADDED, (65536, 3.9668300950305673, 3)),
        (PADDED_MORE, (46811, 5.620242526113579, 2)),
        (BATCHES + NULL_BLOCK, (46811, 5.535177959087147, 2)),
    ],
)
def test_five_sliding_to_seven(versions: tuple[str, ...], figures: tuple[int, float, int]) -> None:
    for version in versions:
        assert found(held("s" * 5 + "f" * 7, version, 2048), 10 * GIB, 131072) == figures


@pytest.mark.parametrize(
    ("versions", "least"),
    [
        # 0.14 to 0.18 let a hybrid start with less than one request takes.
        (OLD + ("0.12.0", "0.13.0") + PADDED_MORE[1:], 5139136512),
        (BATCHES, 5441126400),
        (NULL_BLOCK, 5441716224),
    ],
)
def test_the_least_that_starts(versions: tuple[str, ...], least: int) -> None:
    for version in versions:
        assert held("sf" * 18, version, 8192).bytes_for(131072) == least


# name → (layers, what differs in the layout, the wheels' figures of 1 GiB and 50,000 tokens)
UNLIKE: dict[str, tuple[list[Attention], dict[str, int], tuple[int, float, int]]] = {
    "a narrow window": (
        [Heads(8, 2, 64, 64, window=1024), Heads(8, 2, 128, 128)] * 3, {},
        (21845, 6.647900182592818, 2),
    ),
    "a window that is padded": (
        [Heads(8, 2, 96, 96, window=1024), Heads(8, 2, 128, 128)] * 3, {},
        (21845, 6.339233894370285, 2),
    ),
    "full layers of two widths": (
        [Heads(8, 2, 64, 64), Heads(8, 2, 96, 96)] * 3, {}, (17476, 5.59232, 1),
    ),
    "an indexer": ([SPARSE] * 5, {"block_tokens": 64}, (2613, 3.3414322250639388, 1)),
    "context parallel ranks": (
        [MLA] * 5, {"block_tokens": 64, "decode_context": 8}, (2912, 29.714285714285715, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", NULL_BLOCK)
@pytest.mark.parametrize("name", UNLIKE)
def test_unlike_layers(name: str, version: str) -> None:
    layers, changes, figures = UNLIKE[name]
    wanted = layout(version, max_num_batched_tokens=2048, **changes)
    assert found(pool(model(*layers), 0, wanted, "cuda"), GIB, 50000) == figures


@pytest.mark.parametrize("version", NULL_BLOCK)
@pytest.mark.parametrize(
    ("kinds", "figures"),
    [
        ("sf" * 18, (18204, 1.8695696826537949, 2)),
        ("sssssf" * 4 + "ss", (81920, 4.6913297445882485, 7)),
    ],
)
def test_two_stages(kinds: str, figures: tuple[int, float, int], version: str) -> None:
    geometry = model(*(LAYER[kind] for kind in kinds))
    stages = [pool(geometry, stage, layout(version, pipeline=2), "cuda") for stage in (0, 1)]
    fullest = max(stages, key=lambda stage: stage.bytes_per_block)
    assert found(fullest, 5 * GIB, 131072) == figures
