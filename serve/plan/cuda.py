"""A plan on GPUs: the fewest cards that hold the model and one request of full length."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor

from serve.errors import DoesNotFit
from serve.hardware import Gpu
from serve.plan.fit import Fit, Room, fit_kv, refusal
from serve.plan.geometry import Geometry
from serve.plan.memory import (
    CUDA_BLOCK_TOKENS,
    CUDA_CONTEXT_BYTES,
    CUDA_GRAPH_BYTES,
    DEFAULT_UTILIZATION,
    NCCL_BYTES,
    WORKSPACE_BYTES,
    KvCache,
    activation_bytes,
    batch_limits,
    weights_bytes_per_rank,
)
from serve.plan.plan import Plan, Subject, Wishes

TENSOR_PARALLEL_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The model on these cards; `fit` None: it does not go in."""

    gpus: tuple[Gpu, ...]
    utilization: float
    room: Room
    fit: Fit | None


def plan_on_cuda(
    subject: Subject, geometry: Geometry, kv_item_bytes: int, context_tokens: int,
    gpus: tuple[Gpu, ...], wishes: Wishes,
) -> Plan:  # fmt: skip
    """One engine on as few cards as hold it; raises DoesNotFit."""
    attempts = [
        _attempt(subject, geometry, kv_item_bytes, context_tokens, cards, wishes)
        for cards in _sets_of_cards(gpus, geometry)
    ]
    best = max(
        (each for each in attempts if each.fit is not None),
        # max takes the first of equals: the fewest cards.
        key=lambda each: each.fit.context_tokens if each.fit else 0,
        default=None,
    )
    if best is None or best.fit is None:
        raise refusal(subject, attempts[-1].room, context_tokens, wishes)
    return _plan(subject, best, best.fit, wishes)


def _sets_of_cards(gpus: tuple[Gpu, ...], geometry: Geometry) -> Iterator[tuple[Gpu, ...]]:
    """For each possible degree of tensor parallelism, the cards with most free memory."""
    for size in TENSOR_PARALLEL_SIZES:
        # A CUDA process sees no more than one MIG slice.
        usable = [gpu for gpu in gpus if size == 1 or not gpu.is_slice]
        if size <= len(usable) and geometry.is_divisible_by(size):
            freest = sorted(usable, key=lambda gpu: gpu.free_bytes, reverse=True)[:size]
            yield tuple(sorted(freest, key=lambda gpu: gpu.index))


def _attempt(
    subject: Subject, geometry: Geometry, kv_item_bytes: int, context_tokens: int,
    gpus: tuple[Gpu, ...], wishes: Wishes,
) -> _Attempt:  # fmt: skip
    size = len(gpus)
    utilization = _utilization(gpus)
    batches = [batch_limits(gpu.total_bytes, gpu.name) for gpu in gpus]
    parts = (
        ("weights", weights_bytes_per_rank(geometry, subject.weights_bytes, size)),
        ("activations", max(activation_bytes(geometry, batch, size) for batch in batches)),
        ("CUDA graphs", CUDA_GRAPH_BYTES),
        ("workspaces", WORKSPACE_BYTES),
    )
    budget = min(floor(utilization * gpu.total_bytes) for gpu in gpus)
    kv = KvCache(geometry.kv_bytes_per_token(size, kv_item_bytes), CUDA_BLOCK_TOKENS)
    room = Room("cuda", budget, parts, kv)
    return _Attempt(gpus, utilization, room, fit_kv(room, room.left_bytes, context_tokens, wishes))


def _utilization(gpus: tuple[Gpu, ...]) -> float:
    """The share of its total memory that each card can give, rounded down.

    vLLM refuses to start when utilization x total is more than what is free after its CUDA context
    (and NCCL) are there; the same share holds for all ranks, so the fullest card decides.
    """
    taken = CUDA_CONTEXT_BYTES + (NCCL_BYTES if len(gpus) > 1 else 0)
    least = min((gpu.free_bytes - taken) / gpu.total_bytes for gpu in gpus)
    return max(0.0, min(DEFAULT_UTILIZATION, floor(least * 1000) / 1000))


def _plan(subject: Subject, attempt: _Attempt, fit: Fit, wishes: Wishes) -> Plan:
    return Plan(
        subject=subject,
        device="cuda",
        gpus=tuple(gpu.index for gpu in attempt.gpus),
        cores=(),
        tensor_parallel=len(attempt.gpus),
        context_tokens=fit.context_tokens,
        kv_cache_bytes=fit.kv_bytes,
        kv_tokens=attempt.room.kv.tokens_in(fit.kv_bytes, fit.context_tokens),
        gpu_memory_utilization=attempt.utilization,
        parts=(*attempt.room.parts, ("KV cache", fit.kv_bytes)),
        gpu_uuids=tuple(gpu.uuid for gpu in attempt.gpus),
        is_kv_fixed=wishes.kv_cache_bytes is not None,
        note=fit.note,
    )


def no_gpu(subject: Subject, problem: str | None) -> DoesNotFit:
    """GPUs were asked for, but there are none."""
    return DoesNotFit(
        model=subject.spec.name,
        device="cuda",
        needed_bytes=subject.weights_bytes,
        free_bytes=0,
        parts=(("weights", subject.weights_bytes),),
        remedy=problem or "no NVIDIA GPU was found; set engine.device to cpu",
    )
