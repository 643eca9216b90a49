"""Wishes that no machine could meet are refused here, before anything is weighed."""

from serve.errors import SettingsError
from serve.geometry import is_divisible
from serve.hardware import Machine
from serve.plan.plan import Wishes
from serve.plan.traits import has_latent, kv_heads, query_heads
from serve.plan.versions import rules
from serve.shape import Geometry, Parallel

MOST_TOKENS = 100_000_000
MOST_SEQUENCES = 1_000_000
MOST_RANKS = 1024
MOST_BYTES = 2**50

# Field of the wishes → its name for people (vLLM's flag, or ours), least and largest value.
_BOUNDS: dict[str, tuple[str, int, int]] = {
    "context_tokens": ("context", 1, MOST_TOKENS),
    "concurrency": ("concurrency", 1, MOST_SEQUENCES),
    "tensor_parallel": ("tensor-parallel-size", 1, MOST_RANKS),
    "pipeline_parallel": ("pipeline-parallel-size", 1, MOST_RANKS),
    "data_parallel": ("data-parallel-size", 1, MOST_RANKS),
    "decode_context_parallel": ("decode-context-parallel-size", 1, MOST_RANKS),
    "max_num_batched_tokens": ("max-num-batched-tokens", 1, MOST_TOKENS),
    "max_num_seqs": ("max-num-seqs", 1, MOST_SEQUENCES),
    "block_tokens": ("block-size", 1, 65536),
    "kv_cache_bytes": ("kv-cache-memory-bytes", 0, MOST_BYTES),
    # vLLM has logged less than nothing left.
    "available_kv_bytes": ("available-kv-gib", -MOST_BYTES, MOST_BYTES),
}
# vLLM's config/cache.py has more names, for kernels that we cannot plan for.
KV_DTYPES = ("auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla")
DTYPES = ("auto", "bfloat16", "float16", "float32", "float", "half")


def check_wishes(geometry: Geometry, machine: Machine, wishes: Wishes) -> None:
    """Raises SettingsError for the first wish that is out of bounds, or that contradicts the model,
    the machine or another wish. Whether the memory is enough is not asked here."""
    _check_bounds(wishes)
    _check_names(wishes)
    _check_batches(wishes)
    _check_divisions(geometry, wishes)
    _check_decode_context(geometry, wishes)
    _check_ranks(machine, wishes)


def refusal(key: str, problem: str, suggestion: str | None = None) -> SettingsError:
    """The error for a wish: `key` as people write it."""
    return SettingsError("plan", key, problem, suggestion)


def _check_bounds(wishes: Wishes) -> None:
    for field, (key, least, most) in _BOUNDS.items():
        value = getattr(wishes, field)
        if value is not None and not least <= value <= most:
            raise refusal(key, f"{value} is not between {least} and {most}")
    share = wishes.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        raise refusal("gpu-memory-utilization", f"{share} is not between 0 and 1", "0.9")


def _check_names(wishes: Wishes) -> None:
    for key, value, known in (
        ("kv-cache-dtype", wishes.kv_dtype, KV_DTYPES),
        ("dtype", wishes.dtype, DTYPES),
    ):
        if value is not None and value not in known:
            raise refusal(key, f"{value!r} is not known", f"one of {', '.join(known)}")


def _check_batches(wishes: Wishes) -> None:
    """vLLM's config/scheduler.py: a step has room for one token of every sequence at least."""
    tokens, sequences = wishes.max_num_batched_tokens, wishes.max_num_seqs
    if tokens is not None and sequences is not None and tokens < sequences:
        problem = f"{tokens} is less than the {sequences} sequences that run at once"
        raise refusal("max-num-batched-tokens", problem, f"at least {sequences}")
    if wishes.concurrency is not None and sequences is not None and wishes.concurrency > sequences:
        problem = f"{wishes.concurrency} requests cannot run at once with {sequences} sequences"
        raise refusal("concurrency", problem, f"at most {sequences}, or more sequences")


def _check_divisions(geometry: Geometry, wishes: Wishes) -> None:
    tensor, pipeline = wishes.tensor_parallel or 1, wishes.pipeline_parallel or 1
    layers = len(geometry.layers)
    if pipeline > layers:
        problem = f"{pipeline} stages are more than the model's {layers} layers"
        raise refusal("pipeline-parallel-size", problem, f"at most {layers}")
    reason = _indivisible(geometry, wishes, tensor)
    if reason is None:
        return
    good = [n for n in (1, 2, 4, 8) if _indivisible(geometry, wishes, n) is None]
    suggestion = f"one of {', '.join(map(str, good))}" if good else None
    raise refusal("tensor-parallel-size", reason, suggestion)


def _indivisible(geometry: Geometry, wishes: Wishes, tensor: int) -> str | None:
    """Why no engine runs the model on so many tensor ranks; None: one does."""
    kinds = (False, True) if wishes.is_expert_parallel is None else (wishes.is_expert_parallel,)
    data, version = wishes.data_parallel or 1, rules(wishes.engine_version).version
    spread = [Parallel(tensor=tensor, data=data, is_expert=kind) for kind in kinds]
    reasons = [is_divisible(geometry, parallel, version) for parallel in spread]
    return None if None in reasons else reasons[0]


def _check_decode_context(geometry: Geometry, wishes: Wishes) -> None:
    """vLLM's config/model.py and config/parallel.py: it reuses tensor ranks; without MLA only those
    that would hold copies of the same KV heads."""
    size, tensor = wishes.decode_context_parallel or 1, wishes.tensor_parallel or 1
    if size == 1:
        return
    key = "decode-context-parallel-size"
    if tensor % size:
        raise refusal(key, f"{size} does not divide the {tensor} tensor ranks")
    if has_latent(geometry):
        return
    heads = kv_heads(geometry)
    if size > max(1, tensor // heads):
        problem = f"{tensor} tensor ranks hold the {heads} KV heads fewer than {size} times"
        raise refusal(key, problem, f"at most {max(1, tensor // heads)}")
    if (query_heads(geometry) // heads) % size:
        raise refusal(key, f"{size} does not divide the query heads of a KV head")


def _check_ranks(machine: Machine, wishes: Wishes) -> None:
    device = machine.device if wishes.device == "auto" else wishes.device
    sizes = (wishes.tensor_parallel, wishes.pipeline_parallel, wishes.data_parallel)
    tensor, pipeline, data = (size or 1 for size in sizes)
    wanted = tensor * pipeline * data
    if device == "cpu":
        there, what = len(machine.cpu.nodes), "NUMA node"
    else:
        # An engine spans cards, but never MIG slices.
        whole = sum(not gpu.is_slice for gpu in machine.gpus)
        there, what = max(whole, min(1, len(machine.gpus))), "card"
    if wanted > max(1, there):
        key = "tensor-parallel-size" if tensor > 1 else "pipeline-parallel-size"
        key = key if tensor * pipeline > 1 else "data-parallel-size"
        plural = "" if there == 1 else "s"
        raise refusal(key, f"{wanted} ranks need as many {what}s; there are {there} {what}{plural}")


def need_device(machine: Machine, wishes: Wishes) -> None:
    """Raises SettingsError where the device that is asked for is not there."""
    if wishes.device == "cuda" and not machine.gpus:
        problem = machine.gpu_problem or "no NVIDIA GPU was found"
        raise refusal("gpus", problem, "name the cards to plan for, or plan for the cpu")
    if wishes.device == "cpu" and not machine.cpu.nodes:
        raise refusal("gpus", "nothing is known of the processor beside these cards")
