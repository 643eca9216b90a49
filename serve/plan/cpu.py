"""A plan on the processor: the cores of one NUMA node, and a share of its free memory."""

from math import ceil

from serve.hardware import Cpu
from serve.plan.fit import Room, fit_kv, refusal
from serve.plan.geometry import Geometry
from serve.plan.memory import (
    CPU_BLOCK_TOKENS,
    CPU_ENGINE_BYTES,
    CPU_KV_CONTEXTS,
    CPU_KV_SHARE,
    CPU_WEIGHTS_FACTOR,
    KvCache,
)
from serve.plan.plan import Plan, Subject, Wishes


def plan_on_cpu(
    subject: Subject, geometry: Geometry, kv_item_bytes: int, context_tokens: int,
    cpu: Cpu, wishes: Wishes,
) -> Plan:  # fmt: skip
    """One engine on the largest NUMA node; raises DoesNotFit."""
    cores, free = _largest_node(cpu)
    kv = KvCache(geometry.kv_bytes_per_token(1, kv_item_bytes), CPU_BLOCK_TOKENS)
    parts = (
        ("weights", ceil(subject.weights_bytes * CPU_WEIGHTS_FACTOR)),
        ("engine processes", CPU_ENGINE_BYTES),
    )
    room = Room("cpu", free, parts, kv)
    one = kv.bytes_for(context_tokens)
    comfortable = max(one, min(CPU_KV_CONTEXTS * one, int(free * CPU_KV_SHARE)))
    fit = fit_kv(room, min(room.left_bytes, comfortable), context_tokens, wishes)
    if fit is None:
        raise refusal(subject, room, context_tokens, wishes)
    return Plan(
        subject=subject,
        device="cpu",
        gpus=(),
        cores=cores,
        tensor_parallel=1,
        context_tokens=fit.context_tokens,
        kv_cache_bytes=fit.kv_bytes,
        kv_tokens=kv.tokens_in(fit.kv_bytes, fit.context_tokens),
        gpu_memory_utilization=0.0,
        parts=(*parts, ("KV cache", fit.kv_bytes)),
        note=fit.note,
    )


def _largest_node(cpu: Cpu) -> tuple[tuple[int, ...], int]:
    """Cores and free bytes of the node with most cores, then most memory.

    vLLM's worker binds its memory to one node (v1/worker/cpu_worker.py), so the rest of the
    machine does not help it.
    """
    frees = cpu.node_free_bytes or tuple(cpu.free_bytes for _ in cpu.nodes)
    cores, free = max(zip(cpu.nodes, frees, strict=True), key=lambda node: (len(node[0]), node[1]))
    return cores, min(free, cpu.free_bytes)
