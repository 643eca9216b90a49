"""What memory and speed depend on in a model: its layers, widths, and where its bytes go."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Heads:
    """Softmax attention (MHA, GQA, MQA). `window`: tokens it looks back, None = all.

    `value_dim` differs from `head_dim` in few models. `has_gate`: the query projection gives an
    output gate too (Qwen3-Next).
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int | None = None
    has_gate: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """The indexer of sparse attention (DeepSeek V3.2, GLM-5): it has a cache of its own."""

    heads: int
    head_dim: int
    top_k: int


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention (DeepSeek): one compressed vector per token and layer.

    `query_rank` None: the queries are not compressed (V2-Lite).
    """

    heads: int
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    query_rank: int | None = None
    index: Index | None = None


@dataclass(frozen=True, slots=True)
class Linear:
    """Gated delta net (Qwen3-Next, Qwen3.5): a state of fixed size per request, no keys.

    `state_dtype`: of the recurrent state, where the config names one; None: the model's own.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_width: int
    state_dtype: str | None = None


Attention = Heads | Latent | Linear


@dataclass(frozen=True, slots=True)
class Dense:
    """Gate, up and down projections of this inner width."""

    width: int


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture: `width` of one expert; `shared_width` of what every token passes (0: none)."""

    count: int
    per_token: int
    width: int
    shared_width: int = 0


FeedForward = Dense | Experts


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer."""

    attention: Attention
    feed_forward: FeedForward


@dataclass(frozen=True, slots=True)
class Quant:
    """How the checkpoint's weights are packed. `bits` of one weight.

    `group`: weights that share a scale along the input (0: a whole channel or tensor); `block`: the
    square that FP8 in blocks shares one for. `skips`: patterns of modules left in 16 bit.
    """

    method: Literal["fp8", "awq", "gptq", "compressed-tensors", "mxfp4", "nvfp4", "int8"]
    bits: int
    group: int = 0
    block: tuple[int, int] | None = None
    skips: tuple[str, ...] = ()
    has_zero_points: bool = False


# Where a part lies under pipeline parallelism: with its layer, on the first stage, on the last, on
# both (a tied embedding), or on each (the table of rotary positions); "mtp": a draft layer behind
# the last, not loaded without speculative decoding.
Place = Literal["layer", "first", "last", "both", "each", "mtp"]
# What tensor parallelism makes of it: on every rank; divided; divided by KV heads (repeated when
# there are fewer than ranks); rows of the vocabulary (padded, divided); whole experts or slices of
# all of them, as expert parallelism says; a shared expert: divided, or whole under it.
Cut = Literal["whole", "split", "kv", "vocab", "experts", "shared"]


@dataclass(frozen=True, slots=True)
class Part:
    """Weights that share a fate. `n_bytes`: as loaded on one device, nothing divided yet."""

    place: Place
    cut: Cut
    n_bytes: int
    layer: int = -1  # of place "layer"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a safetensors header. `dtype` as it is written there: "BF16", "F8_E4M3"."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Parallel:
    """How an engine is spread. GPUs: tensor × pipeline × data; `decode_context` divides the KV
    cache of tensor ranks by tokens; `is_expert`: experts are spread whole over tensor × data."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    decode_context: int = 1
    is_expert: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """A model as memory sees it; equal only to itself, so that it is a cheap key of caches.

    `dtype`: of what is not quantised ("bfloat16", "float16", "float32"). `max_position`: what the
    config allows, None where it names none. `parts`: the weights; `basis`: read from every header
    ("headers"), from the config and compared with some headers ("sampled"), or from the config.
    `checkpoint_bytes`: all safetensors as they are on disk, None where unknown. `notes`: what a
    reader of a plan should know (an assumption that was made, for instance).
    """

    architecture: str
    layers: tuple[Layer, ...]
    hidden: int
    vocab: int
    dtype: str
    max_position: int | None
    rotary_dim: int
    is_tied: bool
    parts: tuple[Part, ...]
    basis: Literal["headers", "sampled", "config"]
    quant: Quant | None = None
    kv_dtype: str | None = None  # what the checkpoint itself asks for ("fp8"), else None
    mtp_layers: int = 0
    checkpoint_bytes: int | None = None
    notes: tuple[str, ...] = ()
