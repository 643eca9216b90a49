"""The shape of a model, read from its config.json, as far as memory depends on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

from serve.errors import UnsafeWeights

KV_BYTES_16_BIT = 2
KV_BYTES_8_BIT = 1


@dataclass(frozen=True, slots=True)
class Mla:
    """Multi-head latent attention (DeepSeek): one compressed vector per token and layer."""

    kv_lora_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """Counts and widths. `max_position`: None where the config names none.

    `sharded_widths`: the inner widths of feed-forward blocks that tensor parallelism cuts;
    `quant_block`: the width that a cut must be a multiple of (1: any). `rotary_dim`: per head.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocab: int
    sharded_widths: tuple[int, ...]
    rotary_dim: int
    max_position: int | None
    quant_block: int = 1
    mla: Mla | None = None

    def kv_bytes_per_token(
        self, tensor_parallel: int = 1, item_bytes: int = KV_BYTES_16_BIT
    ) -> int:
        """Bytes of KV cache for one token on one rank; `item_bytes` 2 (16 bit) or 1 (fp8).

        Source: vLLM v1/kv_cache_interface.py. Every rank holds max(1, KV heads / TP) heads, and
        the whole latent vector of MLA.
        """
        if self.mla is not None:
            return self.layers * (self.mla.kv_lora_rank + self.mla.rope_dim) * item_bytes
        heads_per_rank = max(1, self.kv_heads // tensor_parallel)
        return self.layers * heads_per_rank * 2 * self.head_dim * item_bytes

    def is_divisible_by(self, tensor_parallel: int) -> bool:
        """May vLLM cut this model into so many parts?

        Attention heads and inner widths must divide, KV heads must divide or be repeated evenly,
        and a cut must not go through a block of the quantisation (vLLM 0.32
        model_executor/layers/linear.py, layers/quantization/).
        """
        return (
            self.heads % tensor_parallel == 0
            and gcd(self.kv_heads, tensor_parallel) in (self.kv_heads, tensor_parallel)
            and all(
                width % (tensor_parallel * (self.quant_block if tensor_parallel > 1 else 1)) == 0
                for width in self.sharded_widths
            )
        )


def read_geometry(config: Mapping[str, Any]) -> Geometry:
    """The geometry in a config.json, of plain models, MLA, multimodal nesting and old ChatGLM.

    Raises UnsafeWeights where a count that everything depends on is missing or is not a number.
    """
    nested = config.get("text_config")
    text = {**config, **nested} if isinstance(nested, Mapping) else config
    heads = _number(text, "num_attention_heads")
    hidden = _number(text, "hidden_size")
    head_dim = _optional(text, "head_dim", "kv_channels") or hidden // heads
    if head_dim == 0:
        raise UnsafeWeights("config.json", "hidden_size is smaller than num_attention_heads")
    mla = _mla(text)
    return Geometry(
        layers=_number(text, "num_hidden_layers", "num_layers"),
        heads=heads,
        # ChatGLM calls its KV heads groups; without either every head has its own.
        kv_heads=_optional(text, "num_key_value_heads", "multi_query_group_num") or heads,
        head_dim=head_dim,
        hidden=hidden,
        vocab=_number(text, "vocab_size", "padded_vocab_size"),
        sharded_widths=_sharded_widths(text),
        rotary_dim=mla.rope_dim if mla else _rotary_dim(text, head_dim),
        max_position=_optional(text, "max_position_embeddings", "seq_length"),
        quant_block=_quant_block(text),
        mla=mla,
    )


def _mla(text: Mapping[str, Any]) -> Mla | None:
    rank = _optional(text, "kv_lora_rank")
    if rank is None:
        return None
    return Mla(
        kv_lora_rank=rank,
        rope_dim=_number(text, "qk_rope_head_dim"),
        nope_dim=_number(text, "qk_nope_head_dim"),
        value_dim=_number(text, "v_head_dim"),
    )


def _sharded_widths(text: Mapping[str, Any]) -> tuple[int, ...]:
    keys = ("moe_intermediate_size", "shared_expert_intermediate_size")
    widths = [width for key in keys if (width := _optional(text, key))]
    dense = _optional(text, "intermediate_size", "ffn_hidden_size")
    if dense and not _is_all_experts(text):
        widths.append(dense)
    return tuple(widths)


def _is_all_experts(text: Mapping[str, Any]) -> bool:
    """Qwen's MoE configs name a dense width even where no layer is dense."""
    if not _optional(text, "num_experts") or not _optional(text, "moe_intermediate_size"):
        return False
    return _optional(text, "decoder_sparse_step") in (None, 1) and not text.get("mlp_only_layers")


def _rotary_dim(text: Mapping[str, Any], head_dim: int) -> int:
    share = text.get("partial_rotary_factor")
    return int(head_dim * share) if isinstance(share, int | float) else head_dim


def _quant_block(text: Mapping[str, Any]) -> int:
    """FP8 in blocks names `weight_block_size` [128, 128], AWQ and GPTQ a `group_size`."""
    quant = text.get("quantization_config")
    if not isinstance(quant, Mapping):
        return 1
    block = quant.get("weight_block_size") or [quant.get("group_size")]
    sizes = [size for size in block if isinstance(size, int) and size > 0]
    return max(sizes, default=1)


def _number(text: Mapping[str, Any], *keys: str) -> int:
    found = _optional(text, *keys)
    if found is None:
        raise UnsafeWeights(
            "config.json", f"{' or '.join(keys)} is missing or not a number above 0"
        )
    return found


def _optional(text: Mapping[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = text.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
