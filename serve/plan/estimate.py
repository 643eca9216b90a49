"""The whole sum of one layout on the devices it would run on, and whether it fits.

Pure and quick: planning weighs thousands of layouts.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from serve.geometry import weights_per_stage
from serve.hardware import Cpu, Gpu
from serve.plan import overhead
from serve.plan.kv import Pool, pool
from serve.plan.memory import (
    CPU_ENGINE_BYTES,
    CPU_ENGINE_INTERVAL,
    CPU_KV_CONTEXTS,
    CPU_KV_SHARE,
    CPU_WEIGHTS_FACTOR,
)
from serve.plan.plan import Basis, Estimate, Layout, Term
from serve.profiles import Profile
from serve.shape import Geometry, Parallel

Terms = tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a layout is weighed against.

    `requests`: so many of full length must fit at once. `profile`: measured before under the same
    conditions; its terms replace ours. `available_kv_bytes`: what is known to be left for the KV
    cache of each device; replaces the sum. `kv_cache_bytes`: what the engine is told to take.
    """

    requests: int = 1
    profile: Profile | None = None
    available_kv_bytes: int | None = None
    kv_cache_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Sum:
    """One device: `budget_bytes` is what all `terms` and `available_bytes` come to; `short_bytes`
    is what is not free of the memory that the engine asks for."""

    total_bytes: int
    free_bytes: int
    budget_bytes: int
    terms: Terms
    outside_bytes: int
    available_bytes: int
    short_bytes: int


DEFAULT_ASK = Ask()


def evaluate(
    geometry: Geometry, cards: tuple[Gpu, ...], layout: Layout, ask: Ask = DEFAULT_ASK
) -> Estimate:
    """The sum on the device that has the least left, which decides for all.

    `cards`: tensor × pipeline × data many, the ranks of one stage side by side: rank t of stage s
    of replica d has `cards[(d × pipeline + s) × tensor + t]`. The terms and the available KV bytes
    add up to the budget. Never raises for what does not fit.
    """
    if layout.parallel.pipeline == 1:
        cache = pool(geometry, 0, layout, "cuda")
        total = _sum(geometry, cards, layout, 0, ask, cache)
        return _estimate(geometry, layout, cache, total, _requests(layout, ask))
    stages = []
    for stage in range(layout.parallel.pipeline):
        cache = pool(geometry, stage, layout, "cuda")
        total = _sum(geometry, _cards_of(cards, layout, stage), layout, stage, ask, cache)
        stages.append((cache, total))
    requests = _requests(layout, ask)
    cache, total = max(stages, key=lambda each: _tightness(each[0], each[1], layout, requests))
    return _estimate(geometry, layout, cache, total, requests)


def _requests(layout: Layout, ask: Ask) -> int:
    """Of one replica: data parallel replicas share what is asked, and hold a KV cache each."""
    return -(-ask.requests // layout.parallel.data)


def _tightness(cache: Pool, total: _Sum, layout: Layout, requests: int) -> tuple[int, int]:
    """Of the stages the one that misses most decides, then the one with fewest blocks."""
    return _missing(cache, total, layout, requests), -cache.blocks_in(total.available_bytes)


def _missing(cache: Pool, total: _Sum, layout: Layout, requests: int) -> int:
    needed = cache.bytes_for(layout.context_tokens, requests)
    return max(0, needed - total.available_bytes, total.short_bytes)


def evaluate_cpu(geometry: Geometry, cpu: Cpu, layout: Layout, ask: Ask = DEFAULT_ASK) -> Estimate:
    """The sum on the processor: one NUMA node's free memory for each tensor rank.

    vLLM's worker binds its memory to one node (v1/worker/cpu_worker.py). Of what is left only a
    share becomes KV cache, unless more is asked for: the machine is seldom ours alone.
    """
    cache = pool(geometry, 0, layout, "cpu")
    free = _free_of_rank(cpu, layout.parallel.tensor)
    terms = _cpu_terms(geometry, layout)
    used = sum(term.n_bytes for term in terms)
    needed = cache.bytes_for(layout.context_tokens, ask.requests)
    told = ask.kv_cache_bytes if ask.kv_cache_bytes is not None else ask.available_kv_bytes
    if told is None:
        contexts = CPU_KV_CONTEXTS * cache.bytes_for(layout.context_tokens)
        comfortable = max(needed, min(contexts, int(free * CPU_KV_SHARE)))
        told = min(free - used, comfortable)
    short = max(0, used + told - free) if ask.available_kv_bytes is None else 0
    total = _Sum(cpu.total_bytes, free, used + told, terms, 0, told, short)
    return _estimate(geometry, layout, cache, total, ask.requests)


def _cards_of(cards: tuple[Gpu, ...], layout: Layout, stage: int) -> tuple[Gpu, ...]:
    tensor, pipeline = layout.parallel.tensor, layout.parallel.pipeline
    starts = range(stage * tensor, len(cards), tensor * pipeline)
    return tuple(card for start in starts for card in cards[start : start + tensor])


def _sum(
    geometry: Geometry, cards: tuple[Gpu, ...], layout: Layout, stage: int, ask: Ask, cache: Pool
) -> _Sum:
    """On the smallest card of a stage: ranks of a stage take alike."""
    smallest = min(cards, key=lambda card: (card.total_bytes, card.free_bytes))
    budget = ceil(smallest.total_bytes * layout.gpu_memory_utilization)
    terms = _terms(geometry, smallest, layout, stage, ask.profile)
    used = sum(term.n_bytes for term in terms)
    available = _available(budget, used, ask, cache, layout)
    if ask.kv_cache_bytes is not None:
        budget = used + available
    elif used + available != budget:
        terms = _with_rest(terms, budget - used - available, ask)
    outside = overhead.outside_bytes(layout.parallel)
    short = 0 if ask.available_kv_bytes is not None else _short(cards, layout, outside, budget)
    free = smallest.free_bytes
    return _Sum(smallest.total_bytes, free, budget, terms, outside, available, short)


def _short(cards: tuple[Gpu, ...], layout: Layout, outside: int, budget: int) -> int:
    """What is missing for the start itself on the fullest card.

    vLLM asks for ceil(total × utilization), also where the size of the KV cache is told
    (v1/worker/utils.py, request_memory).
    """
    short = 0
    for card in cards:
        requested = ceil(card.total_bytes * layout.gpu_memory_utilization)
        short = max(short, max(requested, budget) + outside - card.free_bytes)
    return short


def _terms(
    geometry: Geometry, card: Gpu, layout: Layout, stage: int, profile: Profile | None
) -> Terms:
    terms = (
        _weights(geometry, layout.parallel, stage, card.compute_capability),
        overhead.activations(geometry, layout, stage == layout.parallel.pipeline - 1),
        overhead.graphs(geometry, layout),
        overhead.other(layout, card),
    )
    if profile is None:
        return terms
    return _measured(terms, profile, layout, overhead.are_graphs_charged(geometry, layout))


@lru_cache(maxsize=4096)
def _weights(
    geometry: Geometry, parallel: Parallel, stage: int, capability: tuple[int, int]
) -> Term:
    n_bytes = weights_per_stage(geometry, parallel, capability)[stage]
    return Term("weights", n_bytes, n_bytes, n_bytes, "exact")


def _measured(terms: Terms, profile: Profile, layout: Layout, are_graphs_charged: bool) -> Terms:
    measured = (
        # Stages differ in their weights, and the profile is of one of them.
        profile.weights_bytes if layout.parallel.pipeline == 1 else None,
        profile.activation_bytes,
        profile.graph_bytes if are_graphs_charged else None,
        profile.other_bytes,
    )
    return tuple(
        term if n_bytes is None else Term(term.name, n_bytes, n_bytes, n_bytes, "measured")
        for term, n_bytes in zip(terms, measured, strict=True)
    )


def _available(budget: int, used: int, ask: Ask, cache: Pool, layout: Layout) -> int:
    """What is left for the KV cache: told, known, measured under the same conditions, or the rest.

    What was measured at another utilization moves with the budget: the terms stay.
    """
    if ask.kv_cache_bytes is not None:
        return ask.kv_cache_bytes
    if ask.available_kv_bytes is not None:
        return ask.available_kv_bytes
    profile = ask.profile
    if profile is None or profile.available_kv_bytes is None or profile.budget_bytes is None:
        return budget - used
    left = profile.available_kv_bytes
    if layout.parallel.pipeline > 1 and profile.kv_blocks and profile.block_tokens:
        # Stages differ, and the profile is of one; the blocks are common to all.
        left = (
            profile.kv_blocks * profile.block_tokens * cache.bytes_per_block // cache.block_tokens
        )
    return left + budget - profile.budget_bytes


def _with_rest(terms: Terms, rest: int, ask: Ask) -> Terms:
    """The terms, made to add up to a sum that is known: what it has more goes to "other", what it
    has less comes from there, then from the graphs and activations (logs count some twice)."""
    basis: Basis = "measured" if ask.available_kv_bytes is None else "given"
    changed = list(terms)
    for index in range(len(terms) - 1, 0, -1):
        term = terms[index]
        n_bytes = max(0, term.n_bytes + rest)
        rest -= n_bytes - term.n_bytes
        changed[index] = Term(term.name, n_bytes, n_bytes, n_bytes, basis)
        if rest == 0:
            return tuple(changed)
    weights_term = terms[0]
    n_bytes = weights_term.n_bytes + rest
    return (Term(weights_term.name, n_bytes, n_bytes, n_bytes, basis), *changed[1:])


def _cpu_terms(geometry: Geometry, layout: Layout) -> Terms:
    loaded = max(weights_per_stage(geometry, layout.parallel, None))
    held = ceil(loaded * CPU_WEIGHTS_FACTOR)
    return (
        Term("weights", held, loaded, held, "estimated"),
        Term("engine processes", CPU_ENGINE_BYTES, *CPU_ENGINE_INTERVAL, "estimated"),
    )


def _free_of_rank(cpu: Cpu, ranks: int) -> int:
    """Free bytes of the node of the last rank, the largest nodes first; ranks may share a node."""
    frees = cpu.node_free_bytes or tuple(cpu.free_bytes for _ in cpu.nodes)
    nodes = sorted(zip(cpu.nodes, frees, strict=True), key=lambda node: (-len(node[0]), -node[1]))
    used = [free for _, free in nodes[:ranks]] or [cpu.free_bytes]
    sharing = -(-ranks // len(used))
    return min(cpu.free_bytes // ranks, min(used) // sharing)


def _estimate(
    geometry: Geometry, layout: Layout, cache: Pool, total: _Sum, requests: int
) -> Estimate:
    available = max(0, total.available_bytes)
    context = layout.context_tokens
    longest = max(context, geometry.max_position or context)
    return Estimate(
        layout=layout,
        total_bytes=total.total_bytes,
        free_bytes=total.free_bytes,
        budget_bytes=total.budget_bytes,
        terms=total.terms,
        outside_bytes=total.outside_bytes,
        available_kv_bytes=total.available_bytes,
        needed_kv_bytes=cache.bytes_for(context, requests),
        kv_bytes_per_token=cache.bytes_per_token,
        block_tokens=cache.block_tokens,
        kv_blocks=cache.blocks_in(available),
        kv_tokens=cache.tokens_in(available, context),
        max_concurrency=cache.concurrency_in(available, context),
        longest_context_tokens=cache.longest_context(available // requests, longest),
        missing_bytes=_missing(cache, total, layout, requests),
        needed_by_free_bytes=total.short_bytes,
    )
