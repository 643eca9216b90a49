"""config.json → how the weights are packed.

Sources: the libraries' own config files as vLLM 0.32 reads them
(model_executor/layers/quantization/: `from_config` of each class; utils/torch_utils.py for what
becomes of the KV cache).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serve.errors import SettingsError
from serve.geometry.fields import Fields, refused
from serve.geometry.schemes import (
    FIELD,
    bits_of,
    group_of,
    pair_of,
    read_compressed,
    read_modelopt,
    read_modelopt_fp4,
    skips_of,
)
from serve.shape import Quant

_BITS_4, _BITS_8 = 4, 8
# MXFP4: 32 weights share a scale of one byte (OCP Microscaling Formats 1.0).
_MX_GROUP = 32

# What the engine is told → the form that is assumed of a checkpoint that does not name one: the
# commonest published one, or what the engine makes of 16 bit weights while it loads them.
_ASSUMED: Mapping[str, Quant] = {
    "awq": Quant("awq", _BITS_4, 128, has_zero_points=True),
    "gptq": Quant("gptq", _BITS_4, 128),
    "fp8": Quant("fp8", _BITS_8),
    "fp8_per_block": Quant("fp8", _BITS_8, block=(128, 128)),
    "compressed-tensors": Quant("compressed-tensors", _BITS_4, 128),
    "mxfp4": Quant("mxfp4", _BITS_4, _MX_GROUP),
    "int8": Quant("int8", _BITS_8),
}
# The engine's other names for the same packing.
_SYNONYMS: Mapping[str, str] = {
    "awq_marlin": "awq",
    "auto_awq": "awq",
    "gptq_marlin": "gptq",
    "auto_gptq": "gptq",
    "compressed_tensors": "compressed-tensors",
    "gpt_oss_mxfp4": "mxfp4",
    "fp8_per_tensor": "fp8",
    "fp8_per_channel": "fp8",
    "fbgemm_fp8": "fp8",
    "int8_per_channel_weight_only": "int8",
}


@dataclass(frozen=True, slots=True)
class Format:
    """How a checkpoint is stored. `kv_dtype`: what it asks its KV cache to be, None: nothing."""

    quant: Quant | None = None
    kv_dtype: str | None = None
    notes: tuple[str, ...] = ()


def read_format(text: Fields, whole: Fields, wished: str | None) -> Format:
    """How the checkpoint is packed.

    `wished`: the engine's name of a packing, assumed in its commonest form where the file does not
    name it. One that the file contradicts is of other weights of the same model, and noted. Raises
    BadFile, and SettingsError for a packing that cannot be planned.
    """
    wish = _wish(wished)
    table = whole.table(FIELD) or text.table(FIELD) or whole.table("compression_config")
    if table is None:
        return Format() if wish is None else _assumed(wish)
    method = _method(table)
    read = _READERS.get(method)
    if read is None:
        raise refused(f"{FIELD}.quant_method", f"cannot be planned: {method}")
    quant = read(table)
    if wish is not None and _ASSUMED[wish].method != quant.method:
        said = f"config.json says {method}; planned for weights that are packed as {wish}"
        return Format(_ASSUMED[wish], None, (said,))
    return Format(quant, _kv_dtype(table, method))


def _method(table: Fields) -> str:
    method = (table.word("quant_method") or "").lower()
    producer = table.table("producer")
    if not method and producer is not None and producer.word("name") == "modelopt":
        method = "modelopt"
    if not method:
        raise refused(f"{FIELD}.quant_method", "is missing")
    return _SYNONYMS.get(method, method)


def _wish(wished: str | None) -> str | None:
    if wished is None:
        return None
    name = _SYNONYMS.get(wished.lower(), wished.lower())
    if name not in _ASSUMED:
        known = ", ".join(_ASSUMED)
        raise SettingsError("plan", "quantization", f"cannot be planned: {wished!r}", known)
    return name


def _assumed(wish: str) -> Format:
    quant = _ASSUMED[wish]
    group = f" in groups of {quant.group}" if quant.group else ""
    if wish in ("fp8", "fp8_per_block", "int8"):
        note = f"the weights are packed into {wish} while they are loaded"
    else:
        note = f"config.json names no packing: {wish}, {quant.bits} bits{group}, is assumed"
    return Format(quant, None, (note,))


def _fp8(table: Fields) -> Quant:
    block = pair_of(table, "weight_block_size")
    return Quant("fp8", _BITS_8, block=block, skips=skips_of(table))


def _awq(table: Fields) -> Quant:
    bits, group = bits_of(table, "bits", "w_bit"), group_of(table, "group_size", "q_group_size")
    has_zero_points = table.flag("zero_point", True)
    return Quant("awq", bits, group, None, skips_of(table), has_zero_points)


def _gptq(table: Fields) -> Quant:
    bits, group = bits_of(table, "bits"), group_of(table, "group_size")
    skips = (*skips_of(table), *_dynamic_skips(table))
    # Symmetric checkpoints hold zero points too; the kernels that serve them drop those.
    return Quant("gptq", bits, group, None, skips, not table.flag("sym", True))


def _dynamic_skips(table: Fields) -> tuple[str, ...]:
    """GPTQModel's `dynamic`: "-:PATTERN" leaves modules out, other rules pack them differently."""
    rules = table.table("dynamic")
    names = list(rules.content) if rules is not None else []
    if any(not name.startswith("-:") for name in names):
        raise refused(f"{FIELD}.dynamic", "cannot be planned: several packings in one model")
    return tuple(f"re:{name.removeprefix('-:')}" for name in names)


def _mxfp4(table: Fields) -> Quant:
    return Quant("mxfp4", _BITS_4, _MX_GROUP, skips=skips_of(table))


def _kv_dtype(table: Fields, method: str) -> str | None:
    """The engine takes it from two libraries' files only."""
    if method.startswith("modelopt"):
        inner = table.table("quantization") or table
        named = inner.word("kv_cache_quant_algo")
        if named is not None:
            return _kv_name(named.lower())
    elif method != "compressed-tensors":
        return None
    scheme = table.table("kv_cache_scheme")
    return None if scheme is None else _kv_scheme(scheme)


def _kv_name(named: str) -> str | None:
    if named not in ("fp8", "auto", "none"):
        raise refused(f"{FIELD}.kv_cache_quant_algo", f"cannot be planned: {named}")
    return "fp8" if named == "fp8" else None


def _kv_scheme(scheme: Fields) -> str:
    bits, kind = scheme.optional("num_bits"), scheme.word("type")
    if (bits, kind) != (_BITS_8, "float"):
        raise refused(f"{FIELD}.kv_cache_scheme", f"cannot be planned: {kind} of {bits} bits")
    return "fp8"


_READERS: Mapping[str, Callable[[Fields], Quant]] = {
    "fp8": _fp8,
    "awq": _awq,
    "gptq": _gptq,
    "compressed-tensors": read_compressed,
    "mxfp4": _mxfp4,
    "modelopt": read_modelopt,
    "modelopt_fp4": read_modelopt_fp4,
}
