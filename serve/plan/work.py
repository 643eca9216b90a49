"""What one device of a pipeline stage reads and computes for a token: the sums behind `speed`."""

from dataclasses import dataclass
from functools import lru_cache

from serve.geometry import layers_per_stage
from serve.shape import Experts, Geometry, Heads, Latent, Layer, Linear, Parallel, Part

_STATE_ITEM_BYTES = 4  # of a gated delta net's recurrent state, kept in 32 bit
# The indexer's key: one byte per number, and one scale of 4 bytes.
_INDEX_SCALE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Look:
    """Attention of some layers to earlier tokens, at most `limit` of them (None: all).

    `n_bytes` of KV cache are read and `flops` done per token that is looked back at.
    """

    limit: int | None
    n_bytes: float
    flops: float


@dataclass(frozen=True, slots=True)
class Work:
    """Of one device of one pipeline stage; tensor ranks run in step.

    `dense_bytes`: weights that every step reads; `expert_bytes`: of all its experts, `share`: of
    them that one token takes. `state_bytes`: read per sequence and step. `flops`: of the matrices
    per token, `head_flops`: of the output layer per sampled token.
    """

    dense_bytes: float
    expert_bytes: float
    share: float
    state_bytes: float
    flops: float
    head_flops: float
    looks: tuple[Look, ...]


@lru_cache(maxsize=512)
def work_per_stage(geometry: Geometry, parallel: Parallel, kv_item_bytes: int) -> tuple[Work, ...]:
    """One entry per pipeline stage. `kv_item_bytes`: of one number in the KV cache."""
    works, start = [], 0
    for layers in layers_per_stage(geometry, parallel):
        span = range(start, start + len(layers))
        works.append(_work(geometry, parallel, layers, span, kv_item_bytes))
        start = span.stop
    return tuple(works)


def _work(
    geometry: Geometry,
    parallel: Parallel,
    layers: tuple[Layer, ...],
    span: range,
    kv_item_bytes: int,
) -> Work:
    is_last = span.stop == len(geometry.layers)
    parts = [part for part in geometry.parts if _is_read(part, span, is_last)]
    experts = [layer.feed_forward for layer in layers if isinstance(layer.feed_forward, Experts)]
    looks: dict[int | None, tuple[float, float]] = {}
    for layer in layers:
        for look in _looks(layer, parallel, kv_item_bytes):
            n_bytes, flops = looks.get(look.limit, (0.0, 0.0))
            looks[look.limit] = (n_bytes + look.n_bytes, flops + look.flops)
    return Work(
        dense_bytes=sum(
            part.n_bytes * _share(part, geometry, parallel)
            for part in parts
            if part.cut != "experts"
        ),
        expert_bytes=sum(part.n_bytes for part in parts if part.cut == "experts")
        / (parallel.tensor * parallel.data),
        share=max((each.per_token / each.count for each in experts), default=0.0),
        state_bytes=sum(_state_bytes(layer) for layer in layers) / parallel.tensor,
        flops=sum(2 * _weights(geometry.hidden, layer) for layer in layers) / parallel.tensor,
        head_flops=2 * geometry.hidden * geometry.vocab / parallel.tensor if is_last else 0.0,
        looks=tuple(Look(limit, *sums) for limit, sums in looks.items()),
    )


def _is_read(part: Part, span: range, is_last: bool) -> bool:
    """Of the input embedding a step reads a row per token; a tied one is read as output layer."""
    if part.place == "layer":
        return part.layer in span
    if part.place == "each":
        return True
    if part.place == "first":
        return span.start == 0 and part.cut != "vocab"
    return is_last and part.place != "mtp"


def _share(part: Part, geometry: Geometry, parallel: Parallel) -> float:
    if part.cut == "whole":
        return 1.0
    if part.cut == "kv" and part.layer >= 0:
        attention = geometry.layers[part.layer].attention
        if isinstance(attention, Heads):
            return 1 / min(parallel.tensor, attention.kv_heads)
    return 1 / parallel.tensor


def _looks(layer: Layer, parallel: Parallel, kv_item_bytes: int) -> tuple[Look, ...]:
    """Of scores and of values, 2 operations per number of each head."""
    match layer.attention:
        case Heads() as heads:
            width = heads.head_dim + heads.value_dim
            kept = max(1, heads.kv_heads // parallel.tensor) * width * kv_item_bytes
            return (
                Look(
                    heads.window,
                    kept / parallel.decode_context,
                    2 * heads.heads * width / parallel.tensor,
                ),
            )
        case Latent() as latent:
            kept = (latent.kv_rank + latent.rope_dim) * kv_item_bytes
            width = latent.nope_dim + latent.rope_dim + latent.value_dim
            flops = 2 * latent.heads * width / parallel.tensor
            main = Look(None, kept / parallel.decode_context, flops)
            if latent.index is None:
                return (main,)
            index = latent.index
            keys = (index.head_dim + _INDEX_SCALE_BYTES) / parallel.decode_context
            return (
                Look(index.top_k, main.n_bytes, main.flops),
                Look(None, keys, 2 * index.heads * index.head_dim),
            )
        case Linear():
            return ()


def _state_bytes(layer: Layer) -> int:
    if not isinstance(layer.attention, Linear):
        return 0
    linear = layer.attention
    return linear.value_heads * linear.key_dim * linear.value_dim * _STATE_ITEM_BYTES


def _weights(hidden: int, layer: Layer) -> int:
    """Numbers of the matrices that one token passes in this layer."""
    return _attention_weights(hidden, layer) + _inner_weights(hidden, layer)


def _attention_weights(hidden: int, layer: Layer) -> int:
    match layer.attention:
        case Heads() as heads:
            queries = heads.heads * heads.head_dim * (2 if heads.has_gate else 1)
            keys = heads.kv_heads * (heads.head_dim + heads.value_dim)
            return hidden * (queries + keys + heads.heads * heads.value_dim)
        case Latent() as latent:
            keys = latent.nope_dim + latent.rope_dim
            queries = latent.heads * keys
            rank = latent.query_rank
            asked = hidden * queries if rank is None else rank * (hidden + queries)
            up = latent.kv_rank * latent.heads * (latent.nope_dim + latent.value_dim)
            down = hidden * (latent.kv_rank + latent.rope_dim)
            return asked + up + down + latent.heads * latent.value_dim * hidden
        case Linear() as linear:
            keys = 2 * linear.key_heads * linear.key_dim
            values = linear.value_heads * linear.value_dim
            return hidden * (keys + 3 * values + 2 * linear.value_heads)


def _inner_weights(hidden: int, layer: Layer) -> int:
    block = layer.feed_forward
    if not isinstance(block, Experts):
        return 3 * hidden * block.width
    return hidden * (3 * (block.per_token * block.width + block.shared_width) + block.count)
