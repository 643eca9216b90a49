"""A decision as a plan: what an engine is started with."""

from serve.hardware import Cpu
from serve.plan.attempt import Attempt, Question, default_batches
from serve.plan.kv import pool
from serve.plan.notes import of_decision
from serve.plan.plan import Plan, Subject


def plan_of(question: Question, attempt: Attempt, subject: Subject) -> Plan:
    """The plan of an attempt that fits."""
    estimate, cards = attempt.estimate, attempt.place.cards
    layout, wishes = estimate.layout, question.wishes
    kv_bytes, is_fixed = _kv(question, attempt)
    parts = tuple((term.name, term.n_bytes) for term in estimate.terms)
    tokens, sequences = _batches(question, attempt)
    return Plan(
        subject=subject,
        device=attempt.place.device,
        gpus=tuple(card.index for card in cards),
        cores=() if cards else _cores(question.machine.cpu, layout.parallel.tensor),
        tensor_parallel=layout.parallel.tensor,
        context_tokens=layout.context_tokens,
        kv_cache_bytes=kv_bytes,
        kv_tokens=estimate.kv_tokens,
        gpu_memory_utilization=layout.gpu_memory_utilization,
        parts=(*parts, ("KV cache", kv_bytes)),
        gpu_uuids=tuple(card.uuid for card in cards),
        is_kv_fixed=is_fixed,
        note=_note(question, attempt, subject),
        pipeline_parallel=layout.parallel.pipeline,
        is_expert_parallel=layout.parallel.is_expert,
        max_num_batched_tokens=tokens,
        max_num_seqs=sequences,
        kv_dtype=None if layout.kv_dtype == "auto" else layout.kv_dtype,
        dtype=None if wishes.dtype == "auto" else wishes.dtype,
        max_concurrency=estimate.max_concurrency,
        device_name=attempt.key.device,
        is_calibrated=attempt.is_calibrated,
        key=attempt.key,
    )


def _kv(question: Question, attempt: Attempt) -> tuple[int, bool]:
    """Bytes of KV cache per device in whole blocks, and whether the engine is told so.

    What was measured before is told, so that starts are repeatable; not where pipeline stages
    differ, as all are told the same.
    """
    estimate, wished = attempt.estimate, question.wishes.kv_cache_bytes
    if wished is not None:
        return wished, True
    device = attempt.place.device
    stages = range(estimate.layout.parallel.pipeline)
    sizes = {
        pool(question.geometry, stage, estimate.layout, device).bytes_per_block for stage in stages
    }
    is_known = attempt.profile is not None and attempt.profile.available_kv_bytes is not None
    is_fixed = device == "cpu" or (is_known and len(stages) == 1)
    return min(estimate.kv_blocks * max(sizes), estimate.available_kv_bytes), is_fixed


def _batches(question: Question, attempt: Attempt) -> tuple[int | None, int | None]:
    """Both limits, or neither where vLLM arrives at them by itself."""
    layout = attempt.estimate.layout
    tokens, sequences = default_batches(question, attempt.place)
    tokens = min(tokens, sequences * layout.context_tokens)
    decided = (layout.max_num_batched_tokens, layout.max_num_seqs)
    return (None, None) if decided == (tokens, min(sequences, tokens)) else decided


def _cores(cpu: Cpu, ranks: int) -> tuple[int, ...]:
    """Cores of the NUMA nodes with most cores, then most memory, one node for each rank.

    vLLM's worker binds its memory to one node (v1/worker/cpu_worker.py), so the rest of the machine
    does not help it.
    """
    frees = cpu.node_free_bytes or tuple(cpu.free_bytes for _ in cpu.nodes)
    nodes = sorted(zip(cpu.nodes, frees, strict=True), key=lambda node: (-len(node[0]), -node[1]))
    return tuple(core for cores, _ in nodes[:ranks] for core in cores)


def _note(question: Question, attempt: Attempt, subject: Subject) -> str | None:
    spec, context = subject.spec, attempt.estimate.layout.context_tokens
    extension = spec.extension_for(context)
    if extension is not None:
        made_for = f"the {spec.context_tokens:,} tokens it is made for"
        return f"the context is extended beyond {made_for}: {extension.how}"
    return next(iter(of_decision(question, attempt)), None)
