"""Which layouts vLLM can cut a model into: what must divide, and by what.

Sources: vLLM 0.32 model_executor/layers/linear.py, layers/vocab_parallel_embedding.py,
layers/quantization/utils/fp8_utils.py (validate_fp8_block_shape), utils/marlin_utils.py.
"""

from collections.abc import Iterator
from math import gcd

from serve.geometry.packing import VOCAB_UNIT, is_skipped
from serve.shape import (
    Dense,
    Experts,
    FeedForward,
    Geometry,
    Heads,
    Layer,
    Linear,
    Parallel,
    Quant,
)

# Since then experts in FP8 blocks may be cut inside a block: its scale is repeated for smaller
# ones, of at least 32 (layers/fused_moe/oracle/fp8.py refine_fp8_moe_block_shape).
_FINER_BLOCKS_SINCE = (0, 29)
_SMALLEST_BLOCK = 32


def obstacle(geometry: Geometry, parallel: Parallel, version: tuple[int, int]) -> str | None:
    """The first thing that does not divide, in words; None if everything does."""
    return next(_obstacles(geometry, parallel, version), None)


def _obstacles(geometry: Geometry, parallel: Parallel, version: tuple[int, int]) -> Iterator[str]:
    if parallel.pipeline > len(geometry.layers):
        yield f"{parallel.pipeline} stages are more than the model's {len(geometry.layers)} layers"
    seen: set[tuple[int, bool]] = set()
    for number, layer in enumerate(geometry.layers):
        kind = (id(layer), _is_packed(geometry.quant, number))
        if kind not in seen:
            seen.add(kind)
            yield from _in_attention(layer, parallel.tensor)
            yield from _in_feed_forward(layer.feed_forward, geometry, parallel)
            yield from _in_blocks(number, layer, geometry, parallel, version)
    rows = -(-geometry.vocab // VOCAB_UNIT) * VOCAB_UNIT
    if rows % parallel.tensor:
        yield f"{parallel.tensor} does not divide the vocabulary's {rows} rows"


def _is_packed(quant: Quant | None, number: int) -> bool:
    return quant is not None and not is_skipped(f"model.layers.{number}.mlp.down_proj", quant)


def _in_attention(layer: Layer, tensor: int) -> Iterator[str]:
    attention = layer.attention
    if isinstance(attention, Linear):
        counts = {
            "key heads of linear attention": attention.key_heads,
            "value heads of linear attention": attention.value_heads,
        }
    else:
        counts = {"attention heads": attention.heads}
    for what, count in counts.items():
        if count % tensor:
            yield f"{tensor} does not divide the model's {count} {what}"
    if isinstance(attention, Heads):
        few, many = sorted((attention.kv_heads, tensor))
        if many % few:
            yield f"{tensor} ranks cannot share {attention.kv_heads} KV heads evenly"


def _in_feed_forward(block: FeedForward, geometry: Geometry, parallel: Parallel) -> Iterator[str]:
    if isinstance(block, Dense):
        yield from _width(block.width, parallel.tensor, "feed-forward width")
        return
    ranks = parallel.tensor * parallel.data
    if max(ranks if parallel.is_expert else 1, parallel.tensor) > block.count:
        yield f"{ranks} ranks are more than the model's {block.count} experts"
    # MXFP4's kernels pad what does not divide.
    is_padded = geometry.quant is not None and geometry.quant.method == "mxfp4"
    if not parallel.is_expert and not is_padded:
        yield from _width(block.width, ranks, "width of one expert")
    yield from _width(block.shared_width, parallel.tensor, "width of the shared expert")


def _width(width: int, ranks: int, what: str) -> Iterator[str]:
    if width % ranks:
        yield f"{ranks} does not divide the {what}, {width}"


def _in_blocks(
    number: int, layer: Layer, geometry: Geometry, parallel: Parallel, version: tuple[int, int]
) -> Iterator[str]:
    """A cut must not go through weights that share a scale."""
    quant = geometry.quant
    unit = 1 if quant is None else max(quant.block or (quant.group,))
    if quant is None or unit <= 1 or quant.method == "mxfp4":
        return
    is_finer = quant.block is not None and version >= _FINER_BLOCKS_SINCE
    for name, width, ranks in _cut_widths(layer, parallel, quant):
        share = width // ranks
        if ranks == 1 or share % unit == 0 or is_skipped(f"model.layers.{number}.{name}", quant):
            continue
        if is_finer and "experts." in name and _has_finer_block(unit, share, geometry.hidden):
            continue
        yield (
            f"{ranks} ranks cut {name} into {share}, not a multiple of the {unit} weights that "
            "share a scale"
        )


def _has_finer_block(unit: int, share: int, hidden: int) -> bool:
    return gcd(unit, share, hidden) >= _SMALLEST_BLOCK


def _cut_widths(layer: Layer, parallel: Parallel, quant: Quant) -> Iterator[tuple[str, int, int]]:
    """(matrix, the width that is cut, into how many) where the cut runs along a shared scale.

    Groups lie along the inputs: only matrices whose inputs are divided count. Blocks lie along the
    outputs too.
    """
    attention, block, tensor = layer.attention, layer.feed_forward, parallel.tensor
    if isinstance(attention, Linear):
        yield "linear_attn.out_proj", attention.value_heads * attention.value_dim, tensor
    else:
        yield "self_attn.o_proj", attention.heads * attention.value_dim, tensor
    if isinstance(attention, Heads) and quant.block is not None:
        yield "self_attn.q_proj", attention.heads * attention.head_dim, tensor
        ranks = min(tensor, attention.kv_heads)
        yield "self_attn.k_proj", attention.kv_heads * attention.head_dim, ranks
    if isinstance(block, Dense):
        yield "mlp.down_proj", block.width, tensor
    else:
        yield from _expert_widths(block, parallel)


def _expert_widths(experts: Experts, parallel: Parallel) -> Iterator[tuple[str, int, int]]:
    ranks = 1 if parallel.is_expert else parallel.tensor * parallel.data
    yield "mlp.experts.down_proj", experts.width, ranks
    if experts.shared_width:
        yield "mlp.shared_experts.down_proj", experts.shared_width, parallel.tensor
