"""Where a model will run: the one entrance to the arithmetic."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from serve.catalog import Extension, ModelSpec
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
    extension = subject.spec.extension_for(wishes.context_tokens or 0)
    if extension is not None and extension.engine_args:
        # What switches it on replaces what the config says of positions.
        geometry = replace(geometry, max_position=extension.context_tokens)
    context_tokens = _context_tokens(subject.spec, extension, geometry, wishes)
    item_bytes = _kv_item_bytes(subject.spec)
    device = machine.device if wishes.device == "auto" else wishes.device
    if device == "cpu":
        plan = plan_on_cpu(subject, geometry, item_bytes, context_tokens, machine.cpu, wishes)
    elif machine.gpus:
        plan = plan_on_cuda(subject, geometry, item_bytes, context_tokens, machine.gpus, wishes)
    else:
        raise no_gpu(subject, machine.gpu_problem)
    made_for = subject.spec.context_tokens
    if extension is None or plan.context_tokens <= made_for:
        return plan
    note = f"the context is extended beyond the {made_for:,} tokens it is made for: {extension.how}"
    return replace(plan, note=note)


def _context_tokens(
    spec: ModelSpec, extension: Extension | None, geometry: Geometry, wishes: Wishes
) -> int:
    """The least of what the model was made for or is extended to, what its config allows and what
    is wished."""
    made_for = extension.context_tokens if extension is not None else spec.context_tokens
    limits = (made_for, geometry.max_position, wishes.context_tokens)
    return min(limit for limit in limits if limit is not None)


def _kv_item_bytes(spec: ModelSpec) -> int:
    """vLLM keeps keys and values in 16 bit unless told `--kv-cache-dtype fp8…`."""
    wanted = str(dict(spec.engine_args).get("kv-cache-dtype", "auto"))
    return KV_BYTES_8_BIT if wanted.startswith("fp8") else KV_BYTES_16_BIT
