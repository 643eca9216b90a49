"""Bytes of weights on the devices of a layout, and which layouts vLLM can cut a model into."""

from functools import lru_cache

from serve.geometry.cuts import obstacle
from serve.geometry.shares import HOPPER, Capability, bytes_on_one_rank
from serve.shape import Geometry, Layer, Parallel, Part

# The engine whose rules hold where nobody names a version.
NEWEST = (0, 32)


@lru_cache(maxsize=4096)
def weights_per_stage(
    geometry: Geometry, parallel: Parallel, capability: Capability = HOPPER
) -> tuple[int, ...]:
    """Bytes on the fullest tensor rank of each pipeline stage, first to last.

    `capability`: of the cards, None for a processor: kernels of MXFP4 pad differently. The layout
    is one that `is_divisible` lets pass. Source: vLLM 0.32 model_executor/layers/.
    """
    stages = _stages_by_layer(len(geometry.layers), parallel.pipeline)
    totals = [0] * parallel.pipeline
    for part in geometry.parts:
        n_bytes = bytes_on_one_rank(part, geometry, parallel, capability)
        for stage in _stages_of(part, stages):
            totals[stage] += n_bytes
    return tuple(totals)


@lru_cache(maxsize=4096)
def layers_per_stage(geometry: Geometry, parallel: Parallel) -> tuple[tuple[Layer, ...], ...]:
    """The decoder layers of each pipeline stage."""
    layers = iter(geometry.layers)
    counts = _layer_counts(len(geometry.layers), parallel.pipeline)
    return tuple(tuple(next(layers) for _ in range(count)) for count in counts)


@lru_cache(maxsize=4096)
def is_divisible(
    geometry: Geometry, parallel: Parallel, version: tuple[int, int] = NEWEST
) -> str | None:
    """None if vLLM of this version can cut the model so, else the reason in words."""
    return obstacle(geometry, parallel, version)


def _layer_counts(layers: int, stages: int) -> list[int]:
    """What does not divide goes to the stages before the last, from the back (vLLM 0.32
    distributed/utils.py get_pp_indices)."""
    counts = [layers // stages] * stages
    for step in range(layers % stages):
        counts[-2 - step] += 1
    return counts


def _stages_by_layer(layers: int, stages: int) -> tuple[int, ...]:
    counts = _layer_counts(layers, stages)
    return tuple(stage for stage, count in enumerate(counts) for _ in range(count))


def _stages_of(part: Part, stages: tuple[int, ...]) -> tuple[int, ...]:
    """Where a part lies; `stages`: that of each layer."""
    last = stages[-1]
    if part.place == "layer":
        return (stages[part.layer],)
    if part.place == "each":
        return tuple(range(last + 1))
    if part.place == "both":
        return (0, last) if last else (0,)
    return {"first": (0,), "last": (last,), "mtp": ()}[part.place]
