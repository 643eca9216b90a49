"""Where a model will run: the one entrance to the arithmetic."""

from collections.abc import Mapping
from typing import Any

from serve.catalog import ModelSpec
from serve.hardware import Machine
from serve.plan.cpu import plan_on_cpu
from serve.plan.cuda import no_gpu, plan_on_cuda
from serve.plan.geometry import KV_BYTES_8_BIT, KV_BYTES_16_BIT, Geometry, read_geometry
from serve.plan.plan import Plan, Subject, Wishes


def make_plan(
    subject: Subject, config: Mapping[str, Any], machine: Machine, wishes: Wishes
) -> Plan:
    """Decide device, cards or cores, context and KV cache for these weights on this machine.

    `config`: the weights' config.json. Raises DoesNotFit with the sum and a remedy, UnsafeWeights
    for a config without a shape.
    """
    geometry = read_geometry(config)
    context_tokens = _context_tokens(subject.spec, geometry, wishes)
    item_bytes = _kv_item_bytes(subject.spec)
    device = machine.device if wishes.device == "auto" else wishes.device
    if device == "cpu":
        return plan_on_cpu(subject, geometry, item_bytes, context_tokens, machine.cpu, wishes)
    if not machine.gpus:
        raise no_gpu(subject, machine.gpu_problem)
    return plan_on_cuda(subject, geometry, item_bytes, context_tokens, machine.gpus, wishes)


def _context_tokens(spec: ModelSpec, geometry: Geometry, wishes: Wishes) -> int:
    """The least of what the model was made for, what its config allows and what is wished."""
    limits = (spec.context_tokens, geometry.max_position, wishes.context_tokens)
    return min(limit for limit in limits if limit is not None)


def _kv_item_bytes(spec: ModelSpec) -> int:
    """vLLM keeps keys and values in 16 bit unless told `--kv-cache-dtype fp8…`."""
    wanted = str(dict(spec.engine_args).get("kv-cache-dtype", "auto"))
    return KV_BYTES_8_BIT if wanted.startswith("fp8") else KV_BYTES_16_BIT
