"""What one tensor rank holds of a part of the weights. Source: vLLM 0.32 model_executor/layers/."""

from collections.abc import Callable, Mapping

from serve.shape import Experts, Geometry, Heads, Parallel, Part

# Compute capability of a card, (9, 0) for an H100; None: no card, a processor.
Capability = tuple[int, int] | None
HOPPER: Capability = (9, 0)

_MX_BLOCK = 32  # weights that share a scale of one byte
# Compute capability's major number → (multiple of an expert's width, of the hidden width) that the
# MXFP4 kernels work in; 0: a processor. Source: vLLM 0.32 layers/fused_moe/oracle/mxfp4.py:
# Triton on 9, TRT-LLM on 10, Marlin on the others.
_MX_UNITS: Mapping[int, tuple[int, int]] = {0: (32, 32), 9: (64, 1)}
_MX_OTHERS = (128, 256)
# Triton's layout for Hopper pads the packed values along the input, not the scales: from the
# logged weights of gpt-oss 20B and 120B (13.47 and 64.38 GiB): 829,440 bytes per expert.
_MX_VALUES: Mapping[int, int] = {9: 256}


def bytes_on_one_rank(
    part: Part, geometry: Geometry, parallel: Parallel, capability: Capability = HOPPER
) -> int:
    """Bytes of a part on the fullest rank that has it."""
    if part.cut == "experts":
        return _experts(part, geometry, parallel, capability)
    return _RULES[part.cut](part, geometry, parallel)


def _whole(part: Part, _geometry: Geometry, _parallel: Parallel) -> int:
    return part.n_bytes


def _split(part: Part, _geometry: Geometry, parallel: Parallel) -> int:
    return -(-part.n_bytes // parallel.tensor)


def _kv(part: Part, geometry: Geometry, parallel: Parallel) -> int:
    """Each rank has at least one KV head; where there are fewer they are repeated."""
    attention = geometry.layers[part.layer].attention
    if not isinstance(attention, Heads):
        return _split(part, geometry, parallel)
    heads = max(1, attention.kv_heads // parallel.tensor)
    return -(-part.n_bytes * heads // attention.kv_heads)


def _shared(part: Part, geometry: Geometry, parallel: Parallel) -> int:
    """A shared expert is whole on ranks that divide the tokens of a batch among them (vLLM 0.32
    config/parallel.py use_sequence_parallel_moe)."""
    is_whole = parallel.is_expert and parallel.tensor > 1 and parallel.data > 1
    return part.n_bytes if is_whole else _split(part, geometry, parallel)


_RULES: Mapping[str, Callable[[Part, Geometry, Parallel], int]] = {
    "whole": _whole,
    "split": _split,
    "vocab": _split,
    "kv": _kv,
    "shared": _shared,
}


def _experts(part: Part, geometry: Geometry, parallel: Parallel, capability: Capability) -> int:
    """Whole experts (the first ranks take what does not divide), or a slice of every one."""
    ranks = parallel.tensor * parallel.data
    experts = geometry.layers[part.layer].feed_forward
    if not isinstance(experts, Experts):
        return -(-part.n_bytes // ranks)
    count, slices = experts.count, ranks
    if parallel.is_expert:
        count, slices = -(-experts.count // ranks), 1
    n_bytes = part.n_bytes * count // experts.count
    if geometry.quant is None or geometry.quant.method != "mxfp4":
        return -(-n_bytes // slices)
    plain = _mx_bytes(geometry.hidden, experts.width, 1)
    padded = _padded_mx_bytes(geometry.hidden, -(-experts.width // slices), capability)
    return n_bytes * padded // plain


def _padded_mx_bytes(hidden: int, width: int, capability: Capability) -> int:
    """Bytes of one expert's slice in MXFP4, as the kernels of this kind of device want it."""
    major = 0 if capability is None else capability[0]
    width_unit, hidden_unit = _MX_UNITS.get(major, _MX_OTHERS)
    width, hidden = _up(width, width_unit), _up(hidden, hidden_unit)
    return _mx_bytes(hidden, width, _MX_VALUES.get(major, 1))


def _mx_bytes(hidden: int, width: int, unit: int) -> int:
    up = 2 * width * _up(hidden, unit)
    down = hidden * _up(width, unit)
    return (up + down) // 2 + 3 * width * hidden // _MX_BLOCK


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
