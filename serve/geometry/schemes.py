"""The two libraries whose files describe their packing piece by piece: compressed-tensors and
ModelOpt; and the fields that all libraries have in common."""

from serve.geometry.fields import Fields, refused
from serve.shape import Quant

FIELD = "quantization_config"
_BITS_4, _BITS_8 = 4, 8
_FP8_BLOCK = (128, 128)
# Weights that share a scale of one byte.
_MX_GROUP, _NV_GROUP = 32, 16


def read_compressed(table: Fields) -> Quant:
    """compressed-tensors: `config_groups`, which must agree. Raises BadFile."""
    groups = table.table("config_groups")
    names = sorted(groups.content) if groups is not None else []
    if groups is None or not names:
        raise refused(f"{FIELD}.config_groups", "is missing")
    found = {_scheme(groups, name, table) for name in names}
    if len(found) > 1:
        raise refused(f"{FIELD}.config_groups", "cannot be planned: several packings in one model")
    return found.pop()


def _scheme(groups: Fields, name: str, table: Fields) -> Quant:
    group = groups.table(name)
    weights = group.table("weights") if group is not None else None
    if group is None or weights is None:
        raise refused(f"{FIELD}.config_groups.{name}", "names no weights")
    form = group.word("format") or table.word("format") or ""
    bits, size, skips = (
        bits_of(weights, "num_bits"),
        group_of(weights, "group_size"),
        skips_of(table),
    )
    kind = weights.word("type") or "int"
    if kind == "float" and bits == _BITS_8:
        return Quant("fp8", bits, size, pair_of(weights, "block_structure"), skips)
    if kind == "float":
        if form.startswith("mxfp4"):
            return Quant("mxfp4", bits, size or _MX_GROUP, None, skips)
        return Quant("nvfp4", bits, size or _NV_GROUP, None, skips)
    if form not in ("pack-quantized", "int-quantized", "naive-quantized"):
        raise refused(f"{FIELD}.format", f"cannot be planned: {form or 'is missing'}")
    if form != "pack-quantized":
        return Quant("int8", bits, size, None, skips)
    return Quant("compressed-tensors", bits, size, None, skips, not weights.flag("symmetric", True))


def read_modelopt(table: Fields) -> Quant:
    """ModelOpt: FP8 per tensor or in blocks, NVFP4. Raises BadFile."""
    inner = table.table("quantization") or table
    algorithm = (inner.word("quant_algo") or "").upper()
    skips = skips_of(table) or skips_of(inner)
    if algorithm in ("FP8", "FP8_PER_CHANNEL_PER_TOKEN"):
        return Quant("fp8", _BITS_8, skips=skips)
    if algorithm == "FP8_PB_WO":
        return Quant("fp8", _BITS_8, block=_FP8_BLOCK, skips=skips)
    if algorithm == "NVFP4":
        return Quant("nvfp4", _BITS_4, group_of(inner, "group_size") or _NV_GROUP, None, skips)
    raise refused(f"{FIELD}.quant_algo", f"cannot be planned: {algorithm or 'is missing'}")


def read_modelopt_fp4(table: Fields) -> Quant:
    """ModelOpt's NVFP4 under its own name. Raises BadFile."""
    inner = table.table("quantization") or table
    size = group_of(inner, "group_size") or _NV_GROUP
    return Quant("nvfp4", _BITS_4, size, None, skips_of(table) or skips_of(inner))


def bits_of(table: Fields, *names: str) -> int:
    """Bits of one weight: 2, 3, 4 or 8. Raises BadFile."""
    bits = table.count(*names)
    if bits not in (2, 3, _BITS_4, _BITS_8):
        raise refused(f"{FIELD}.{names[0]}", f"cannot be planned: {bits} bits")
    return bits


def group_of(table: Fields, *names: str) -> int:
    """Weights that share a scale; -1 and null mean a whole channel: 0. Raises BadFile."""
    size = table.optional(*names, least=-1)
    return 0 if size is None or size < 0 else size


def pair_of(table: Fields, name: str) -> tuple[int, int] | None:
    """The two sides of a block; None where it is not there. Raises BadFile."""
    sides = table.counts(name)
    if sides is None:
        return None
    if len(sides) != 2 or 0 in sides:
        raise refused(f"{FIELD}.{name}", f"must be two numbers above 0: {list(sides)!r:.80}")
    return sides[0], sides[1]


def skips_of(table: Fields) -> tuple[str, ...]:
    """Names and patterns ("re:…") of the modules that are left in 16 bit. Raises BadFile."""
    for name in ("ignore", "ignored_layers", "modules_to_not_convert", "exclude_modules"):
        found = table.words(name)
        if found:
            return found
    return ()
