"""Is a safetensors header true? Pure, and without any library that would load the file.

The format (huggingface/safetensors, README "Format"): 8 bytes little-endian N, N bytes of JSON
`{name: {dtype, shape, data_offsets: [begin, end]}, "__metadata__": {str: str}}`, then the data.
Every byte of the data belongs to exactly one tensor. The reference reader allows N ≤ 100 MB; we
allow 16 MiB, which is 140,000 tensors in one file and takes 135 MiB to read: no model has a tenth
of that, and a header must not be a way to fill the memory.
"""

import json
import math
from pathlib import Path
from typing import Any

from serve.errors import UnsafeWeights
from serve.shape import Tensor

MAX_HEADER_BYTES = 16 * 2**20
_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


class BadHeader(ValueError):
    """The header is no true description of the data; the text says why."""


def check_file(path: Path, name: str) -> None:
    """UnsafeWeights unless the file's header is sane; `name` is the file's name in the error."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise BadHeader(f"a header of {length} bytes in a file of {size}")
            check_header(file.read(length), size - 8 - length)
    except BadHeader as error:
        raise UnsafeWeights(name, str(error)) from error


def read_tensors(path: Path, name: str) -> tuple[Tensor, ...]:
    """What a file that was checked says it holds; UnsafeWeights if it does not any more."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise UnsafeWeights(name, f"a header of {length} bytes")
        return tensors_in(file.read(length), name)


def tensors_in(header: bytes, name: str) -> tuple[Tensor, ...]:
    """The tensors that a header describes; UnsafeWeights if it is none. `name`: the file's."""
    try:
        content = _parse(header)
        spans = {tensor: end - begin for begin, end, tensor in _spans(content)}
    except BadHeader as error:
        raise UnsafeWeights(name, str(error)) from error
    return tuple(
        Tensor(tensor, facts["dtype"], tuple(facts["shape"]), spans[tensor])
        for tensor, facts in content.items()
    )


def check_header(header: bytes, data_bytes: int) -> None:
    """BadHeader unless the header describes exactly `data_bytes` bytes, without overlap or hole."""
    end_of_last = 0
    for begin, end, name in sorted(_spans(_parse(header))):
        if begin != end_of_last:
            raise BadHeader(f"{name}: begins at {begin}, expected {end_of_last}")
        end_of_last = end
    if end_of_last != data_bytes:
        raise BadHeader(f"tensors end at {end_of_last}, the data at {data_bytes}")


def _parse(header: bytes) -> dict[str, Any]:
    try:
        # Of bytes, json.loads would guess the encoding, and take UTF-16 that nobody else reads.
        content = json.loads(header.decode(), object_pairs_hook=_unique, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise BadHeader(f"the header is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadHeader("the header is not an object")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise BadHeader("a key occurs twice")
    # Half a surrogate pair is a text to Python and to no other reader: UnicodeEncodeError.
    "".join(text for pair in pairs for text in pair if isinstance(text, str)).encode()
    return content


def _integer(digits: str) -> int:
    if digits == "-0":  # not an integer to the reference reader
        raise BadHeader("a number that is no count: -0")
    return int(digits)


def _spans(content: dict[str, Any]) -> list[tuple[int, int, str]]:
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BadHeader("__metadata__ is not a map of texts")
    return [_span(name, tensor) for name, tensor in content.items()]


def _span(name: str, tensor: Any) -> tuple[int, int, str]:
    if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
        raise BadHeader(f"{name}: expected dtype, shape and data_offsets")
    bits = _BITS.get(tensor["dtype"]) if isinstance(tensor["dtype"], str) else None
    if bits is None:
        raise BadHeader(f"{name}: unknown dtype {tensor['dtype']!r}")
    shape, offsets = tensor["shape"], tensor["data_offsets"]
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise BadHeader(f"{name}: shape or data_offsets are not counts")
    begin, end = offsets
    if (end - begin) * 8 != math.prod(shape) * bits:
        raise BadHeader(f"{name}: {end - begin} bytes for shape {shape} of {tensor['dtype']}")
    return begin, end, name


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)
