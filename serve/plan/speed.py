"""How fast a layout can be at best: bytes over bandwidth, operations over FLOP/s.

Upper limits. Kernels reach perhaps 60 to 90 % of them; communication between cards, sampling and
the host's work are left out. They are for comparing machines, not for promises.
"""

import math
from dataclasses import dataclass

from serve.hardware import Cpu, Gpu
from serve.plan.plan import Layout, Speed
from serve.plan.work import Work, work_per_stage
from serve.shape import Geometry, Quant


@dataclass(frozen=True, slots=True)
class _Device:
    """Bytes per second; operations per second in matrices and in attention (16 bit)."""

    bandwidth: float
    flops: float
    attention_flops: float


def speed(geometry: Geometry, cards: tuple[Gpu, ...], layout: Layout, streams: int) -> Speed | None:
    """Limits at the layout's full context, alone and with `streams` at once (of all replicas).

    The slowest card counts, as all ranks run in step. None: a card's data sheet is not known.
    """
    devices = [_device(card, geometry.quant) for card in cards]
    known = [device for device in devices if device is not None]
    if not known or len(known) < len(devices):
        return None
    slowest = _Device(
        min(device.bandwidth for device in known),
        min(device.flops for device in known),
        min(device.attention_flops for device in known),
    )
    return _speed(geometry, slowest, layout, streams)


def speed_cpu(geometry: Geometry, cpu: Cpu, layout: Layout, streams: int) -> Speed | None:
    """The same of a processor, by the measured bandwidth of its memory alone: what it computes per
    second is not known, so `prefill_tokens_s` is 0. None: the bandwidth was not measured.

    Tensor ranks share the memory's bandwidth evenly.
    """
    if cpu.bandwidth is None:
        return None
    device = _Device(cpu.bandwidth / layout.parallel.tensor, math.inf, math.inf)
    found = _speed(geometry, device, layout, streams)
    return Speed(found.decode_tokens_s, found.streams, found.decode_tokens_s_all, 0.0)


def _device(card: Gpu, quant: Quant | None) -> _Device | None:
    plain = card.known.flops_of("fp16") if card.known is not None else None
    if card.known is None or plain is None:
        return None
    return _Device(card.known.bandwidth, _matrix_flops(card, quant) or plain, plain)


def _matrix_flops(card: Gpu, quant: Quant | None) -> int | None:
    """Operations per second in the format that the kernels multiply in; None: in 16 bit.

    Weights of 4 bit are unpacked to 16 bit (Marlin kernels) but for MXFP4 on cards with FP4 units,
    where activations are FP8. Cards without FP8 or INT8 units unpack those too.
    """
    if quant is None or card.known is None:
        return None
    if quant.method == "mxfp4":
        return card.known.flops_of("fp8") if card.known.flops_of("fp4") else None
    if quant.bits != 8:
        return None
    return card.known.flops_of("int8" if quant.method == "int8" else "fp8")


def _speed(geometry: Geometry, device: _Device, layout: Layout, streams: int) -> Speed:
    works = work_per_stage(geometry, layout.parallel, _kv_item_bytes(geometry, layout))
    return Speed(
        decode_tokens_s=_decode(works, device, layout, 1),
        streams=streams,
        decode_tokens_s_all=_decode(works, device, layout, streams),
        prefill_tokens_s=_prefill(works, device, layout),
    )


def _kv_item_bytes(geometry: Geometry, layout: Layout) -> int:
    kept = geometry.kv_dtype if layout.kv_dtype == "auto" else layout.kv_dtype
    if kept is not None and kept.startswith("fp8"):
        return 1
    return 4 if geometry.dtype == "float32" else 2


def _decode(works: tuple[Work, ...], device: _Device, layout: Layout, streams: int) -> float:
    """Tokens per second of all streams.

    Pipeline stages work on different streams at once; a stream alone passes them one by one.
    """
    data = min(layout.parallel.data, streams)
    of_replica = streams / data
    at_once = max(1.0, of_replica / len(works))
    times = [_step_time(work, device, layout, at_once, streams) for work in works]
    period = max(max(times), sum(times) * at_once / of_replica)
    return data * at_once / period


def _step_time(work: Work, device: _Device, layout: Layout, at_once: float, streams: int) -> float:
    context = layout.context_tokens
    seen = [(look, min(context, look.limit or context)) for look in work.looks]
    touched = _touched(work, max(at_once, streams / layout.parallel.pipeline))
    n_bytes = work.dense_bytes + work.expert_bytes * touched
    n_bytes += at_once * (work.state_bytes + sum(look.n_bytes * tokens for look, tokens in seen))
    computing = at_once * (work.flops + work.head_flops) / device.flops
    computing += (
        at_once * sum(look.flops * tokens for look, tokens in seen) / device.attention_flops
    )
    return max(n_bytes / device.bandwidth, computing)


def _touched(work: Work, tokens: float) -> float:
    """The share of all experts that so many tokens choose, each as likely as any other."""
    return 1.0 - math.pow(1.0 - work.share, tokens)


def _prefill(works: tuple[Work, ...], device: _Device, layout: Layout) -> float:
    """Tokens per second of prompts of full length, in full batches, on all replicas."""
    tokens = layout.max_num_batched_tokens
    return layout.parallel.data * tokens / max(_batch_time(work, device, layout) for work in works)


def _batch_time(work: Work, device: _Device, layout: Layout) -> float:
    tokens = layout.max_num_batched_tokens
    touched = _touched(work, tokens)
    reading = (work.dense_bytes + work.expert_bytes * touched) / device.bandwidth
    pairs = sum(look.flops * _mean_seen(layout.context_tokens, look.limit) for look in work.looks)
    computing = tokens * (work.flops / device.flops + pairs / device.attention_flops)
    return max(reading, computing)


def _mean_seen(context: int, limit: int | None) -> float:
    """Earlier tokens that a token of a prompt sees on average, at most `limit`."""
    if limit is None or limit >= context:
        return context / 2
    return limit - limit * limit / (2 * context)
