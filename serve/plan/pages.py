"""The KV cache of one layer: what a block of it takes, and how a request grows in it.

Source: vLLM's v1/kv_cache_interface.py and the get_kv_cache_spec of its attention layers.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from serve.errors import SettingsError
from serve.shape import Attention, Geometry, Heads, Latent, Linear

# Names of vLLM's --kv-cache-dtype → bytes of one number. Scales of these lie beside the cache.
ITEM_BYTES = {
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_ds_mla": 1,
    "fp8_inc": 1,
}
MODEL_BYTES = {"float32": 4, "float": 4}  # everything else that a model is in takes 2

# Sparse MLA in FP8: 512 B of values, 16 B of scales, 128 B of rotary part in 16 bit
# (v1/attention/backends/mla/flashmla_sparse.py).
FP8_DS_MLA_BYTES = 656
# The indexer keeps its keys in FP8 with one 4 byte scale per 128 (models/deepseek_v2.py).
INDEX_GROUP = 128
INDEX_SCALE_BYTES = 4
# Hybrids of MLA and linear attention make their blocks of so many tokens, or multiples of it
# (platforms/interface.py).
LATENT_ALIGNMENT = 128
# The smallest blocks that kernels take (v1/attention/backends/cpu_attn.py, flash_attn.py).
KERNEL_TOKENS = {"cpu": 32, "cuda": 16}


@dataclass(frozen=True, slots=True)
class Page:
    """One cache of one layer; equal pages may share a group.

    `n_bytes`: of one block of `block_tokens`. "full" keeps every token, "sliding" the last
    `window`, "state" has `states` blocks per request, however long. `shape` tells apart what only
    happens to be of the same size.
    """

    kind: Literal["full", "sliding", "state"]
    shape: tuple[int, ...]
    block_tokens: int
    n_bytes: int
    window: int = 0
    states: int = 0


@dataclass(frozen=True, slots=True)
class Format:
    """How caches are written on one rank: `item_bytes` of a key's number, `model_bytes` of the
    model's own, `states` per request of linear attention. `is_sparse`: MLA with an indexer in some
    layers, whose kernels have an FP8 format of their own in all. `state_bytes`: of a number of a
    recurrent state whose dtype the config does not name; 4 on a CPU, whose quick kernels want it so
    (platforms/cpu.py, since 0.26 with AMX, since 0.29 with AVX-512 BF16)."""

    tensor: int
    block_tokens: int
    item_bytes: int
    model_bytes: int
    states: int
    is_sparse: bool = False
    state_bytes: int = 2


def item_bytes(geometry: Geometry, kv_dtype: str) -> int:
    """Bytes of one number in the KV cache; "auto": what the checkpoint asks for, else the model's.

    Raises SettingsError for a format that is not known here.
    """
    wanted = geometry.kv_dtype or "auto" if kv_dtype == "auto" else kv_dtype
    if wanted == "auto":
        return model_bytes(geometry)
    if wanted not in ITEM_BYTES:
        known = ", ".join(("auto", *ITEM_BYTES))
        raise SettingsError("plan", "kv-cache-dtype", f"{wanted!r} is not one of {known}", "fp8")
    return ITEM_BYTES[wanted]


def model_bytes(geometry: Geometry) -> int:
    """Bytes of one number of what is not quantised."""
    return MODEL_BYTES.get(geometry.dtype, 2)


def pages_of(attention: Attention, form: Format) -> tuple[Page, ...]:
    """The caches of one layer: one, or two where an indexer has its own."""
    match attention:
        case Heads():
            return (_of_heads(attention, form),)
        case Latent():
            return _of_latent(attention, form)
        case Linear():
            return (_of_state(attention, form),)


def raised_block(attentions: tuple[Attention, ...], form: Format, least_tokens: int) -> int:
    """The block of attention layers beside linear ones: raised until it holds a whole state.

    `least_tokens`: what the kernel's blocks are multiples of. Source: platforms/interface.py,
    _align_hybrid_block_size.
    """
    states = [_of_state(each, form).n_bytes for each in attentions if isinstance(each, Linear)]
    one = replace(form, block_tokens=1)
    tokens = [page for each in attentions for page in pages_of(each, one) if page.kind != "state"]
    if not states or not tokens:
        return form.block_tokens
    aligned = max(form.block_tokens, least_tokens)
    if any(isinstance(each, Latent) for each in attentions):
        aligned = max(aligned, LATENT_ALIGNMENT)
    per_token = tokens[0].n_bytes
    return max(form.block_tokens, aligned * -(-max(states) // (aligned * per_token)))


def _of_heads(heads: Heads, form: Format) -> Page:
    # Fewer heads than ranks: each is repeated, so that every rank has one (config/model.py).
    own = max(1, heads.kv_heads // form.tensor)
    n_bytes = form.block_tokens * own * (heads.head_dim + heads.value_dim) * form.item_bytes
    shape = (own, heads.head_dim, heads.value_dim)
    kind: Literal["full", "sliding"] = "full" if heads.window is None else "sliding"
    return Page(kind, shape, form.block_tokens, n_bytes, heads.window or 0)


def _of_latent(latent: Latent, form: Format) -> tuple[Page, ...]:
    width = latent.kv_rank + latent.rope_dim
    is_packed = form.is_sparse and form.item_bytes == 1
    per_token = FP8_DS_MLA_BYTES if is_packed else width * form.item_bytes
    own = Page("full", (width, 0), form.block_tokens, form.block_tokens * per_token)
    if latent.index is None:
        return (own,)
    keys = latent.index.head_dim
    keys += keys // INDEX_GROUP * INDEX_SCALE_BYTES
    return own, Page("full", (keys, 1), form.block_tokens, form.block_tokens * keys)


def _of_state(linear: Linear, form: Format) -> Page:
    # model_executor/layers/mamba/mamba_utils.py, gated_delta_net_state_shape.
    width = 2 * linear.key_heads * linear.key_dim + linear.value_heads * linear.value_dim
    conv = (width // form.tensor, linear.conv_width - 1)
    recurrent = (linear.value_heads // form.tensor, linear.value_dim, linear.key_dim)
    state_bytes = form.state_bytes
    if linear.state_dtype is not None:
        state_bytes = MODEL_BYTES.get(linear.state_dtype, 2)
    n_bytes = prod(conv) * form.model_bytes + prod(recurrent) * state_bytes
    return Page("state", (*conv, *recurrent), form.block_tokens, n_bytes, states=form.states)
