"""Every memory constant and formula of the planner, each with its source. All sizes in bytes.

"Measured" means start-up logs of vLLM on real cards; the rest is read in vLLM 0.32's source, or
marked as an estimate. vLLM charges its budget (utilization x total memory) with weights, the peak
of a profiling run, workspaces and CUDA graphs; what is left becomes KV cache
(v1/worker/gpu_worker.py, determine_available_memory).
"""

from dataclasses import dataclass
from math import ceil

from serve.plan.geometry import Geometry

GIB = 2**30

# vLLM config/cache.py: gpu_memory_utilization, a share of the card's total, not of its free memory.
DEFAULT_UTILIZATION = 0.92
# The CUDA context is made before vLLM measures, so it lowers what is free but is not charged. About
# 0.5 GiB; some is left over for what other processes do meanwhile (estimate).
CUDA_CONTEXT_BYTES = 6 * GIB // 10
# NCCL's buffers, made before the measurement too, with more than one card (estimate).
NCCL_BYTES = GIB // 2
# CUDA graphs at the default capture sizes: measured 0.1 to 1.0 GiB on an H100 (vLLM 0.11).
CUDA_GRAPH_BYTES = GIB
# Non-torch memory (measured 0.13 to 0.21 GiB) and the attention backend's workspace (FlashInfer
# asks for 394 MiB).
WORKSPACE_BYTES = 6 * GIB // 10
# Shards are even to 1 or 2 %: norms and routers are on every rank, vocabularies are padded.
SHARD_UNEVENNESS = 1.02
# Bytes per vocabulary entry and sequence of the sampler's warm-up: a fit to measured peaks on an
# H100 with 1024 sequences: 4.76 GiB at 128,256 entries, 5.56 at 151,936, 7.38 at 201,088.
SAMPLER_BYTES_PER_LOGIT = 39

# On a CPU: API server, engine core and worker with all their imports take 2.2 to 2.5 GiB (measured,
# vLLM 0.32), and oneDNN keeps some weights in a second layout (estimate).
CPU_ENGINE_BYTES = 5 * GIB // 2
CPU_WEIGHTS_FACTOR = 1.1
# The KV cache of a CPU takes at most this share of the free memory and room for so many requests of
# full length: the machine is seldom ours alone, and two models may be wanted (our choice).
CPU_KV_SHARE = 1 / 3
CPU_KV_CONTEXTS = 16

# Tokens per block of KV cache (v1/attention/backends; platforms/cpu.py). The CPU's reference MLA
# backend takes 16, of which 128 is a multiple.
CUDA_BLOCK_TOKENS = 16
CPU_BLOCK_TOKENS = 128


@dataclass(frozen=True, slots=True)
class KvCache:
    """Arithmetic on the KV cache of one device, in blocks, as v1/core/kv_cache_utils.py does it.

    All layers are counted as full attention: for sliding windows and linear attention the result is
    too high, never too low.
    """

    bytes_per_token: int
    block_tokens: int

    @property
    def block_bytes(self) -> int:
        return self.bytes_per_token * self.block_tokens

    def bytes_for(self, context_tokens: int) -> int:
        """What one request of this length needs, with the null block that vLLM keeps for itself."""
        return (ceil(context_tokens / self.block_tokens) + 1) * self.block_bytes

    def longest_context(self, size_bytes: int) -> int:
        """The longest request that this many bytes hold, in tokens; 0 if none."""
        return max(0, size_bytes // self.block_bytes - 1) * self.block_tokens

    def whole_blocks(self, size_bytes: int) -> int:
        """The largest size in whole blocks that is not above this one."""
        return max(0, size_bytes) // self.block_bytes * self.block_bytes

    def tokens_in(self, size_bytes: int, context_tokens: int) -> int:
        """The figure that vLLM logs as "KV cache size": concurrency x context length."""
        per_request = ceil(context_tokens / self.block_tokens)
        return size_bytes // self.block_bytes * context_tokens // per_request


def batch_limits(total_bytes: int, name: str) -> tuple[int, int]:
    """(max_num_batched_tokens, max_num_seqs) that vLLM's server takes on this card by default.

    Source: engine/arg_utils.py, get_batch_defaults.
    """
    if total_bytes >= 160 * GIB:
        return 16384, 1024
    if total_bytes >= 70 * GIB and "a100" not in name.lower():
        return 8192, 1024
    return 2048, 256


def weights_bytes_per_rank(geometry: Geometry, on_disk_bytes: int, tensor_parallel: int) -> int:
    """What the weights take on one card.

    The sum of the files, cut; the rope cache (max_position x rotary_dim x 2 B: 14.957 GiB of
    Llama-3.1-8B become 14.989 in vLLM's log); and for MLA the absorbed copies of W_UK and W_UV.
    """
    evenness = SHARD_UNEVENNESS if tensor_parallel > 1 else 1.0
    rope_cache = (geometry.max_position or 0) * geometry.rotary_dim * 2
    absorbed = 0
    if geometry.mla is not None:
        mla = geometry.mla
        width = mla.nope_dim + mla.value_dim
        absorbed = geometry.layers * geometry.heads * width * mla.kv_lora_rank * 2
    return (
        ceil(on_disk_bytes * evenness / tensor_parallel) + rope_cache + absorbed // tensor_parallel
    )


def activation_bytes(geometry: Geometry, batch: tuple[int, int], tensor_parallel: int) -> int:
    """The peak above the weights in vLLM's profiling run: forward pass or sampler, the larger one.

    `batch`: (tokens, sequences). The forward pass is an estimate: two residual streams, gate, up
    and their product, and q, k, v, in 16 bit.
    """
    tokens, sequences = batch
    inner = 3 * max(geometry.sharded_widths, default=0)
    qkv = (geometry.heads + 2 * geometry.kv_heads) * geometry.head_dim
    forward = tokens * (2 * geometry.hidden + (inner + qkv) // tensor_parallel) * 2
    return max(forward, SAMPLER_BYTES_PER_LOGIT * geometry.vocab * sequences)
