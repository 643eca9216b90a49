"""Models made by hand, as far as their KV cache goes, and layouts to weigh them with."""

from typing import Any

from serve.plan.plan import Layout
from serve.shape import Attention, Dense, Geometry, Heads, Index, Latent, Layer, Linear, Parallel

GQA = Heads(32, 8, 128, 128)
WINDOW = Heads(64, 8, 64, 64, window=128)
WHOLE = Heads(64, 8, 64, 64)
MLA = Latent(128, 512, 64, 128, 128)
SPARSE = Latent(128, 512, 64, 128, 128, 1536, Index(64, 128, 2048))
# Qwen3-Next-80B: a state of 32 × 128 × 128 numbers and 3 × 8192 of the convolution.
DELTA = Linear(16, 32, 128, 128, 4)


def model(*attentions: Attention, dtype: str = "bfloat16", **changes: Any) -> Geometry:
    """A model of these layers."""
    facts: dict[str, Any] = {
        "architecture": "ForTests", "hidden": 4096, "vocab": 32000, "dtype": dtype,
        "max_position": 131072, "rotary_dim": 128, "is_tied": False, "parts": (),
        "basis": "config", **changes,
    }  # fmt: skip
    return Geometry(layers=tuple(Layer(each, Dense(1024)) for each in attentions), **facts)


def layout(version: str = "0.32", tensor: int = 1, pipeline: int = 1, **changes: Any) -> Layout:
    """vLLM's defaults on an H100, but for what is said."""
    facts: dict[str, Any] = {
        "parallel": Parallel(tensor, pipeline, decode_context=changes.pop("decode_context", 1)),
        "context_tokens": 131072, "max_num_batched_tokens": 8192, "max_num_seqs": 1024,
        "kv_dtype": "auto", "block_tokens": 16, "gpu_memory_utilization": 0.92,
        "version": version, **changes,
    }  # fmt: skip
    return Layout(**facts)
