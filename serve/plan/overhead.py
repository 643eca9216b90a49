"""The terms above the weights: activations, CUDA graphs, what torch does not see, and what stands
beside the budget. Estimates, each with the interval that it lies in. Bytes on one device.

Source: vLLM v1/worker/gpu_worker.py (determine_available_memory) and the two model runners
(profile_run, profile_cudagraph_memory); the constants are in serve/plan/memory.py.
"""

from functools import lru_cache
from math import ceil

from serve.hardware import Gpu
from serve.plan.memory import (
    CUDA_CONTEXT_BYTES,
    FORWARD_INTERVAL,
    GRAPH_EXPERT_LAYER_BYTES,
    GRAPH_FIXED_BYTES,
    GRAPH_INTERVAL,
    GRAPH_LAYER_BYTES,
    NCCL_BYTES,
    OTHER_BYTES,
    OTHER_FLASHINFER_BYTES,
    OTHER_INTERVAL,
    OTHER_LINKED_BYTES,
    OTHER_NOW_BYTES,
    OTHER_NOW_SINCE,
    OTHER_UNIFIED_BYTES,
    SAMPLER_FIRST_RUNNER,
    SAMPLER_SECOND_RUNNER,
    SAMPLER_SECOND_RUNNER_GATHERED,
    SECOND_RUNNER_FOR_ALL,
    SECOND_RUNNER_FOR_PLAIN,
)
from serve.plan.plan import Layout, Term
from serve.plan.versions import rules
from serve.shape import Experts, Geometry, Heads, Latent, Layer, Linear, Parallel

Interval = tuple[float, float]
Version = tuple[int, int]

# vLLM pads vocabularies to a multiple of this (VocabParallelEmbedding).
_VOCABULARY_PADDING = 64
# CUDA graphs are captured for batches of 1, 2, 4, of multiples of 8 up to 256, then of 16, up to
# twice the sequences or this (config/vllm.py); for whole decode batches up to the sequences only.
_LARGEST_GRAPH = 512
_NO_GRAPHS = Term("CUDA graphs", 0, 0, 0, "exact")


def activations(geometry: Geometry, layout: Layout, is_last_stage: bool) -> Term:
    """The peak above the weights in the profiling run: the forward pass of a full batch, or the
    sampler with every sequence, whichever is larger.

    The sampler runs on the last pipeline stage only.
    """
    ruling = rules(layout.version)
    tokens = layout.max_num_batched_tokens
    if ruling.are_prompts_whole:
        tokens = max(tokens, layout.context_tokens)
    sequences = min(layout.max_num_seqs, tokens) if is_last_stage else 0
    return _activations(geometry, layout.parallel, ruling.version, tokens, sequences)


def graphs(geometry: Geometry, layout: Layout) -> Term:
    """What capturing CUDA graphs takes out of the budget: nothing when the engine runs eagerly, or
    is of a version that does not count it."""
    if not are_graphs_charged(geometry, layout):
        return _NO_GRAPHS
    return _graphs(geometry, layout.max_num_seqs, layout.parallel.pipeline)


def are_graphs_charged(geometry: Geometry, layout: Layout) -> bool:
    """Does this engine subtract its CUDA graphs from the budget before it makes the KV cache?"""
    ruling = rules(layout.version)
    if layout.is_eager or not ruling.are_graphs_subtracted:
        return False
    return ruling.version >= SECOND_RUNNER_FOR_ALL or not _has_second_runner(
        geometry, ruling.version
    )


def other(layout: Layout, card: Gpu) -> Term:
    """Memory that is charged, but that is neither weights nor activations: loaded kernels, cuBLAS,
    workspaces, buffers between cards."""
    known = card.known
    is_linked = known is not None and known.link_bandwidth > 0 and layout.parallel.tensor > 1
    is_unified = known is not None and known.is_unified
    version = rules(layout.version).version
    return _other(version, is_linked, is_unified, card.compute_capability[0])


def outside_bytes(parallel: Parallel) -> int:
    """The CUDA context, and NCCL's buffers between several cards: taken before vLLM measures, so
    not charged to its budget, but no longer free either."""
    world = parallel.tensor * parallel.pipeline * parallel.data
    return CUDA_CONTEXT_BYTES + (NCCL_BYTES if world > 1 else 0)


def graphs_captured(max_num_seqs: int) -> int:
    """How many graphs of whole decode batches are captured."""
    largest = max(1, min(max_num_seqs, _LARGEST_GRAPH))
    small = sum(size <= largest for size in (1, 2, 4))
    return small + min(largest, 255) // 8 + (1 + (largest - 256) // 16 if largest >= 256 else 0)


@lru_cache(maxsize=1024)
def forward_bytes_per_token(geometry: Geometry, parallel: Parallel) -> int:
    """Live tensors of the widest layer, per token in the batch, on one tensor rank.

    Two streams of the residual beside the widest moment: gate, up and their product in a
    feed-forward block; what goes to and comes from every chosen expert; or queries, keys, values
    and the output in attention. All in 16 bit.
    """
    widest = max(_live_width(geometry.hidden, layer, parallel) for layer in set(geometry.layers))
    return 2 * (2 * geometry.hidden + widest)


@lru_cache(maxsize=4096)
def _activations(
    geometry: Geometry, parallel: Parallel, version: Version, tokens: int, sequences: int
) -> Term:
    forward = tokens * forward_bytes_per_token(geometry, parallel)
    per_logit, interval = _sampler(geometry, version, parallel)
    vocabulary = ceil(geometry.vocab / _VOCABULARY_PADDING) * _VOCABULARY_PADDING
    sampler = ceil(sequences * vocabulary * per_logit)
    if sampler > forward:
        return _estimated("activations", sampler, interval)
    return _estimated("activations", forward, FORWARD_INTERVAL)


@lru_cache(maxsize=4096)
def _graphs(geometry: Geometry, max_num_seqs: int, stages: int) -> Term:
    extrapolated = (graphs_captured(max_num_seqs) - 1) * _bytes_per_graph(geometry) // stages
    return _estimated("CUDA graphs", GRAPH_FIXED_BYTES + extrapolated, GRAPH_INTERVAL)


@lru_cache(maxsize=256)
def _other(version: Version, is_linked: bool, is_unified: bool, capability: int) -> Term:
    n_bytes = OTHER_NOW_BYTES if version >= OTHER_NOW_SINCE else OTHER_BYTES
    if is_linked:
        n_bytes += OTHER_LINKED_BYTES
    if is_unified:
        n_bytes += OTHER_UNIFIED_BYTES
    if capability == 10:
        n_bytes += OTHER_FLASHINFER_BYTES
    return _estimated("other", n_bytes, OTHER_INTERVAL)


@lru_cache(maxsize=256)
def _bytes_per_graph(geometry: Geometry) -> int:
    with_experts = sum(isinstance(layer.feed_forward, Experts) for layer in geometry.layers)
    dense = len(geometry.layers) - with_experts
    return dense * GRAPH_LAYER_BYTES + with_experts * GRAPH_EXPERT_LAYER_BYTES


@lru_cache(maxsize=256)
def _is_plain(geometry: Geometry) -> bool:
    return not any(
        isinstance(layer.feed_forward, Experts) or isinstance(layer.attention, Linear)
        for layer in geometry.layers
    )


def _has_second_runner(geometry: Geometry, version: Version) -> bool:
    if version >= SECOND_RUNNER_FOR_ALL:
        return True
    return version >= SECOND_RUNNER_FOR_PLAIN and _is_plain(geometry)


def _sampler(geometry: Geometry, version: Version, parallel: Parallel) -> tuple[float, Interval]:
    if _has_second_runner(geometry, version):
        return SAMPLER_SECOND_RUNNER if parallel.tensor == 1 else SAMPLER_SECOND_RUNNER_GATHERED
    return next(
        (per_logit, interval)
        for since, per_logit, interval in SAMPLER_FIRST_RUNNER
        if version >= since
    )


def _live_width(hidden: int, layer: Layer, parallel: Parallel) -> int:
    return max(_attention_width(layer, parallel.tensor), _inner_width(hidden, layer, parallel))


def _attention_width(layer: Layer, tensor: int) -> int:
    match layer.attention:
        case Heads() as heads:
            width = (heads.heads + heads.kv_heads) * (heads.head_dim + heads.value_dim)
        case Latent() as latent:
            keys = latent.nope_dim + latent.rope_dim
            width = latent.heads * (2 * keys + 2 * latent.value_dim)
        case Linear() as linear:
            width = (
                2 * linear.key_heads * linear.key_dim + 4 * linear.value_heads * linear.value_dim
            )
    return width // tensor


def _inner_width(hidden: int, layer: Layer, parallel: Parallel) -> int:
    """Gate and up, then the product; of experts for every choice of a token, and what they give
    back at full width shares its place with gate and up (layers/fused_moe, workspaces)."""
    block = layer.feed_forward
    if not isinstance(block, Experts):
        return 3 * block.width // parallel.tensor
    width = block.width // (1 if parallel.is_expert else parallel.tensor * parallel.data)
    shared = 3 * block.shared_width // parallel.tensor
    return block.per_token * (max(2 * width, hidden) + width) + shared


def _estimated(name: str, n_bytes: int, interval: Interval) -> Term:
    low, high = interval
    return Term(name, n_bytes, int(n_bytes * low), ceil(n_bytes * high), "estimated")
