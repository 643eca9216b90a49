"""Bytes of one matrix in the format that it is kept in on the device.

Sources: vLLM 0.32 model_executor/layers/quantization/ (`create_weights` of each method).
"""

import re
from functools import lru_cache

from serve.geometry.fields import refused
from serve.shape import Quant

# Rows of the vocabulary are padded to a multiple of this (layers/vocab_parallel_embedding.py).
VOCAB_UNIT = 64
ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_NUMBERED = re.compile(r"\.\d+\.")
_STAR = re.escape("*")
_REPEATED_GROUP = re.compile(r"\)\s*[*+{]")
_REPEAT = re.compile(r"[*+{]")
_MOST_REPEATS = 8
_SCALE_BYTES = {"fp8": 4, "int8": 4, "awq": 2, "gptq": 2, "compressed-tensors": 2}
_SCALE_BYTES |= {"mxfp4": 1, "nvfp4": 1}


def packed_bytes(outs: int, ins: int, quant: Quant) -> int:
    """Bytes of a quantised matrix of so many outputs and inputs, its scales and zero points."""
    weights = outs * ins * quant.bits // 8
    scales = _scales(outs, ins, quant)
    scale_bytes = _SCALE_BYTES[quant.method] if quant.group else 4
    zeros = scales * quant.bits // 8 if quant.has_zero_points else 0
    return weights + scales * scale_bytes + zeros


def _scales(outs: int, ins: int, quant: Quant) -> int:
    if quant.block is not None:
        rows, columns = quant.block
        return -(-outs // rows) * -(-ins // columns)
    if quant.group:
        return outs * -(-ins // quant.group)
    return outs if quant.method in ("compressed-tensors", "int8") else 1


def is_skipped(name: str, quant: Quant) -> bool:
    """Is this module (its path in the checkpoint) left in 16 bit?

    A pattern is a whole path, some of its dotted components ("lm_head", "mlp.gate"), has "*" for
    any text, or is a regular expression after "re:" that matches from the start. Raises BadFile
    for one that is none.
    """
    exact, runs, pattern = _matcher(quant.skips)
    if name in exact or (pattern is not None and pattern.match(name)):
        return True
    dotted = f".{name}."
    return any(run in dotted for run in runs)


@lru_cache(maxsize=64)
def _matcher(
    skips: tuple[str, ...],
) -> tuple[frozenset[str], tuple[str, ...], re.Pattern[str] | None]:
    """Whole paths, runs of components, and one pattern for what is written with wildcards."""
    wild = [_as_regex(skip) for skip in skips if _is_wild(skip)]
    plain = [skip for skip in skips if not _is_wild(skip)]
    exact = frozenset(skip for skip in plain if _NUMBERED.search(skip))
    runs = tuple(f".{skip.strip('.')}." for skip in plain if skip not in exact and skip.strip("."))
    return exact, runs, re.compile("|".join(wild)) if wild else None


def _is_wild(skip: str) -> bool:
    return skip.startswith("re:") or "*" in skip


def _as_regex(skip: str) -> str:
    if skip.startswith("re:"):
        pattern = skip.removeprefix("re:")
    else:
        pattern = re.escape(skip).replace(_STAR, ".*")
    # A file from elsewhere must not keep us busy: such patterns can take for ever to fail.
    if _REPEATED_GROUP.search(pattern) or len(_REPEAT.findall(pattern)) > _MOST_REPEATS:
        raise refused("quantization_config", f"cannot be planned: the pattern {skip!r:.80}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise refused("quantization_config", f"{skip!r:.80} is no pattern: {error}") from error
    return f"(?:{pattern})"
