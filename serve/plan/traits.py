"""What the decision asks of a geometry besides its bytes; each answer is kept."""

from functools import lru_cache

from serve.shape import Experts, Geometry, Heads, Latent


@lru_cache(maxsize=256)
def has_latent(geometry: Geometry) -> bool:
    """Does some layer keep one compressed vector per token (MLA)?"""
    return any(isinstance(layer.attention, Latent) for layer in geometry.layers)


@lru_cache(maxsize=256)
def has_experts(geometry: Geometry) -> bool:
    """Is some layer a mixture of experts?"""
    return any(isinstance(layer.feed_forward, Experts) for layer in geometry.layers)


@lru_cache(maxsize=256)
def kv_heads(geometry: Geometry) -> int:
    """The fewest KV heads of a layer with softmax attention; 1 where there is none."""
    return min((heads.kv_heads for heads in _softmax(geometry)), default=1)


@lru_cache(maxsize=256)
def query_heads(geometry: Geometry) -> int:
    """Query heads of the layers with softmax attention; 1 where there is none."""
    return min((heads.heads for heads in _softmax(geometry)), default=1)


def _softmax(geometry: Geometry) -> tuple[Heads, ...]:
    kinds = dict.fromkeys(layer.attention for layer in geometry.layers)
    return tuple(kind for kind in kinds if isinstance(kind, Heads))
