"""Under which key a launch is kept, and looked for before the next."""

from serve.hardware import Cpu, Gpu
from serve.plan.plan import Layout
from serve.profiles import ProfileKey

_MIB = 2**20


def profile_key(weights: str, device: Gpu | Cpu, layout: Layout) -> ProfileKey:
    """The key of these weights (their digest) laid out so on devices of this kind.

    A card is named with its memory: there are two of 40 and 80 GiB with one name. Utilisation and
    context are no part of it: the terms do not depend on them, and the budget is kept beside them.
    Nor is the patch in the engine's version: what it counts with is that of the release.
    """
    parallel = layout.parallel
    return ProfileKey(
        weights=weights,
        device=_name(device),
        engine_version=".".join(layout.version.split(".")[:2]),
        tensor_parallel=parallel.tensor,
        pipeline_parallel=parallel.pipeline,
        data_parallel=parallel.data,
        max_num_batched_tokens=layout.max_num_batched_tokens,
        max_num_seqs=layout.max_num_seqs,
        kv_dtype=layout.kv_dtype,
        is_eager=layout.is_eager,
    )


def _name(device: Gpu | Cpu) -> str:
    if isinstance(device, Gpu):
        return f"{device.name} {device.total_bytes // _MIB}MiB"
    return device.name
