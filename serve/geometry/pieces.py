"""The tensors of one decoder layer, by its shape and its architecture's traits.

Names are the checkpoint's, below `model.layers.N`. Source: vLLM 0.32 model_executor/models/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve.geometry.traits import Traits, is_set
from serve.shape import Cut, Dense, Experts, Heads, Index, Latent, Layer, Linear

FLOAT32 = 4
KV_UP = "self_attn.kv_b_proj"
# Made when the weights are loaded: MLA's `kv_b_proj` unpacked, which decoding multiplies with, and
# four scales per attention.
ABSORBED, SCALES = "absorbed", "scales"
MADE = frozenset({ABSORBED, SCALES})


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor, or `copies` of them: `outs` × `ins` numbers. `is_linear`: it may be quantised.

    `item_bytes` 0: the model's own 16 bit. `unpacked_of`: made only where that matrix is packed.
    """

    name: str
    outs: int
    ins: int = 1
    cut: Cut = "split"
    is_linear: bool = False
    item_bytes: int = 0
    copies: int = 1
    unpacked_of: str = ""


# Of queries, keys, values and probabilities; every softmax attention has them.
_SCALES = Piece(SCALES, 4, cut="whole", item_bytes=FLOAT32)


@dataclass(frozen=True, slots=True)
class Frame:
    """What all layers of a model have in common."""

    hidden: int
    traits: Traits
    text: Mapping[str, Any]

    def says(self, flag: bool | str) -> bool:
        return is_set(flag, self.text)


def pieces_of(layer: Layer, frame: Frame) -> tuple[Piece, ...]:
    """Everything in one layer."""
    norms = Piece("norms", frame.hidden * frame.traits.norms, cut="whole")
    return (*_attention(layer, frame), *_feed_forward(layer, frame), norms)


def _linear(name: str, outs: int, ins: int, cut: Cut = "split") -> Piece:
    return Piece(name, outs, ins, cut, is_linear=True)


def _attention(layer: Layer, frame: Frame) -> list[Piece]:
    attention = layer.attention
    if isinstance(attention, Linear):
        return _delta_net(attention, frame.hidden)
    if isinstance(attention, Latent):
        return [*_latent(attention, frame.hidden), _SCALES]
    return [*_heads(attention, frame), _SCALES]


def _heads(heads: Heads, frame: Frame) -> list[Piece]:
    hidden, traits = frame.hidden, frame.traits
    query = heads.heads * heads.head_dim * (2 if heads.has_gate else 1)
    key, value = heads.kv_heads * heads.head_dim, heads.kv_heads * heads.value_dim
    pieces = [
        _linear("self_attn.q_proj", query, hidden),
        _linear("self_attn.k_proj", key, hidden, "kv"),
        _linear("self_attn.v_proj", value, hidden, "kv"),
        _linear("self_attn.o_proj", hidden, heads.heads * heads.value_dim),
    ]
    if frame.says(traits.qkv_bias):
        pieces += [Piece("q_bias", query), Piece("kv_bias", key + value, cut="kv")]
    if frame.says(traits.output_bias):
        pieces.append(Piece("o_bias", hidden, cut="whole"))
    if traits.has_sinks:
        pieces.append(Piece("sinks", heads.heads))
    return pieces + _qk_norms(heads, frame)


def _qk_norms(heads: Heads, frame: Frame) -> list[Piece]:
    kind = frame.traits.qk_norm
    if kind == "none" or not frame.says(frame.traits.qk_norm_if):
        return []
    if kind == "head":
        return [Piece("qk_norm", 2 * heads.head_dim, cut="whole")]
    return [
        Piece("q_norm", heads.heads * heads.head_dim),
        Piece("k_norm", heads.kv_heads * heads.head_dim, cut="kv"),
    ]


def _latent(latent: Latent, hidden: int) -> list[Piece]:
    """MLA. What decoding multiplies with is `kv_b_proj` in another order: no copy, unless that
    matrix is packed (vLLM 0.32 layers/attention/mla_attention.py process_weights_after_loading)."""
    query = latent.heads * (latent.nope_dim + latent.rope_dim)
    up = latent.heads * (latent.nope_dim + latent.value_dim)
    pieces = [
        _linear("self_attn.kv_a_proj_with_mqa", latent.kv_rank + latent.rope_dim, hidden, "whole"),
        Piece("kv_a_layernorm", latent.kv_rank, cut="whole"),
        _linear(KV_UP, up, latent.kv_rank),
        Piece(ABSORBED, up, latent.kv_rank, unpacked_of=KV_UP),
        _linear("self_attn.o_proj", hidden, latent.heads * latent.value_dim),
    ]
    if latent.query_rank is None:
        return [*pieces, _linear("self_attn.q_proj", query, hidden)]
    pieces += [
        _linear("self_attn.q_a_proj", latent.query_rank, hidden, "whole"),
        Piece("q_a_layernorm", latent.query_rank, cut="whole"),
        _linear("self_attn.q_b_proj", query, latent.query_rank),
    ]
    return pieces + (_index(latent.index, latent.query_rank, hidden) if latent.index else [])


def _index(index: Index, query_rank: int, hidden: int) -> list[Piece]:
    """The sparse attention's indexer: whole on every rank, its key projection in 16 bit."""
    return [
        _linear("self_attn.indexer.wq_b", index.heads * index.head_dim, query_rank, "whole"),
        Piece("indexer_wk_weights", index.head_dim + index.heads, hidden, cut="whole"),
        Piece("indexer_k_norm", 2 * index.head_dim, cut="whole", item_bytes=FLOAT32),
    ]


def _delta_net(linear: Linear, hidden: int) -> list[Piece]:
    keys, values = linear.key_heads * linear.key_dim, linear.value_heads * linear.value_dim
    return [
        _linear("linear_attn.in_proj_qkvz", 2 * keys + 2 * values, hidden),
        _linear("linear_attn.in_proj_ba", 2 * linear.value_heads, hidden),
        Piece("conv1d", 2 * keys + values, linear.conv_width),
        Piece("dt_bias", linear.value_heads),
        Piece("A_log", linear.value_heads, item_bytes=FLOAT32),
        Piece("norm", linear.value_dim, cut="whole"),
        _linear("linear_attn.out_proj", hidden, values),
    ]


def _feed_forward(layer: Layer, frame: Frame) -> list[Piece]:
    feed_forward = layer.feed_forward
    if isinstance(feed_forward, Dense):
        return _dense("mlp", feed_forward.width, frame, "split")
    return _experts(feed_forward, frame)


def _dense(name: str, width: int, frame: Frame, cut: Cut) -> list[Piece]:
    pieces = [
        _linear(f"{name}.gate_proj", width, frame.hidden, cut),
        _linear(f"{name}.up_proj", width, frame.hidden, cut),
        _linear(f"{name}.down_proj", frame.hidden, width, cut),
    ]
    if frame.says(frame.traits.mlp_bias):
        biases = [Piece("up_bias", 2 * width), Piece("down_bias", frame.hidden, cut="whole")]
        return pieces + biases
    return pieces


def _experts(experts: Experts, frame: Frame) -> list[Piece]:
    hidden, traits, count = frame.hidden, frame.traits, experts.count
    router_bytes = FLOAT32 if traits.is_router_wide else 0
    name = f"{traits.mlp}.experts"
    pieces = [
        Piece("router", count, hidden, "whole", item_bytes=router_bytes),
        Piece(f"{name}.gate_proj", experts.width, hidden, "experts", True, copies=count),
        Piece(f"{name}.up_proj", experts.width, hidden, "experts", True, copies=count),
        Piece(f"{name}.down_proj", hidden, experts.width, "experts", True, copies=count),
    ]
    if frame.says(traits.correction):
        pieces.append(Piece("correction", count, cut="whole", item_bytes=FLOAT32))
    if traits.router_bias:
        pieces.append(Piece("router_bias", count, cut="whole"))
    if traits.expert_bias:
        pieces.append(Piece("expert_bias", 2 * experts.width, cut="experts", copies=count))
        # Not divided with the width; under expert parallelism a little too much.
        pieces.append(Piece("expert_down_bias", hidden, cut="whole", copies=count))
    return pieces + _shared(experts, frame)


def _shared(experts: Experts, frame: Frame) -> list[Piece]:
    if not experts.shared_width:
        return []
    name = "shared_expert" if frame.traits.has_shared_gate else "shared_experts"
    pieces = _dense(f"{frame.traits.mlp}.{name}", experts.shared_width, frame, "shared")
    if frame.traits.has_shared_gate:
        pieces.append(Piece("shared_gate", frame.hidden, cut="whole"))
    return pieces
