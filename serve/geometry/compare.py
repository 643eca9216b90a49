"""Do safetensors headers and config.json speak of the same model?"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serve.errors import BadFile, SettingsError
from serve.geometry.headers import FLOATS
from serve.geometry.naming import Role
from serve.geometry.packing import ITEM_BYTES, is_skipped
from serve.geometry.pieces import Frame, Piece, pieces_of
from serve.geometry.traits import TRAITS, traits_of
from serve.shape import Geometry, Layer, Part, Quant, Tensor

FILE = "safetensors"
# Formats in which a shape is that of the matrix, or of its words of 32 bits.
_CHECKED = FLOATS | {"I32", "F8_E4M3"}
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
# How far all bytes may be from what the config makes of them.
_TOLERANCE = 0.03
# Encoders of images are at most this share of the language model that they are made for.
_ENCODER_SHARE = 0.3
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# What a matrix's shape comes from.
_FIELDS = {
    "q_proj": "num_attention_heads, head_dim or hidden_size",
    "k_proj": "num_key_value_heads, head_dim or hidden_size",
    "v_proj": "num_key_value_heads, head_dim or hidden_size",
    "o_proj": "num_attention_heads, head_dim or hidden_size",
    "kv_a_proj_with_mqa": "kv_lora_rank, qk_rope_head_dim or hidden_size",
    "kv_b_proj": "num_attention_heads or kv_lora_rank",
    "q_a_proj": "q_lora_rank or hidden_size",
    "q_b_proj": "num_attention_heads or q_lora_rank",
}


def check_tensors(
    placed: Sequence[tuple[Tensor, Role]],
    geometry: Geometry,
    text: Mapping[str, Any],
    is_sample: bool,
) -> None:
    """Raises BadFile("safetensors", "TENSOR: …") for the first tensor that contradicts the config:
    a layer or an expert too many or (of a whole checkpoint) missing, another shape, another
    packing."""
    frame = Frame(geometry.hidden, traits_of(geometry.architecture), text)
    matrices: dict[int, Mapping[str, Piece]] = {}
    for tensor, role in placed:
        if role.place == "mtp":
            _check_draft(tensor, role, geometry)
        elif role.place == "layer":
            layer = geometry.layers[role.layer]
            if id(layer) not in matrices:
                matrices[id(layer)] = _matrices(layer, frame)
            piece = matrices[id(layer)].get(role.module)
            if piece is not None:
                _check_matrix(tensor, role, piece, geometry.quant)
        elif role.cut == "vocab":
            _check_shape(tensor, (geometry.vocab, geometry.hidden), "vocab_size or hidden_size")
    _check_packing(placed, geometry.quant)
    if not is_sample:
        _check_layers({role.layer for _, role in placed}, geometry)


def _matrices(layer: Layer, frame: Frame) -> Mapping[str, Piece]:
    return {piece.name: piece for piece in pieces_of(layer, frame) if piece.is_linear}


def _check_draft(tensor: Tensor, role: Role, geometry: Geometry) -> None:
    last = len(geometry.layers) + geometry.mtp_layers
    if role.layer >= last:
        said = f"num_hidden_layers {len(geometry.layers)}"
        raise _bad(tensor, f"there is no such layer by config.json's {said}")


def _check_layers(seen: set[int], geometry: Geometry) -> None:
    missing = next((n for n in range(len(geometry.layers)) if n not in seen), None)
    if missing is not None:
        said = f"config.json's num_hidden_layers is {len(geometry.layers)}"
        raise BadFile(FILE, f"layers.{missing}: has no tensors, but {said}")


def _check_matrix(tensor: Tensor, role: Role, piece: Piece, quant: Quant | None) -> None:
    found = _EXPERT.search(tensor.name)
    if found is not None and int(found[1]) >= piece.copies:
        raise _bad(tensor, f"config.json names {piece.copies} experts")
    if quant is None and tensor.dtype not in FLOATS:
        raise _bad(tensor, f"is {tensor.dtype}, but config.json names no quantization_config")
    if tensor.name.endswith(".weight") and len(tensor.shape) == 2:
        field = _FIELDS.get(role.module.rpartition(".")[2], "intermediate_size or hidden_size")
        _check_shape(tensor, (piece.outs, piece.ins), field)
    if quant is not None and tensor.name.endswith(".qweight"):
        _check_words(tensor, piece, quant)


def _check_words(tensor: Tensor, piece: Piece, quant: Quant) -> None:
    """The shapes of AWQ and GPTQ: so many numbers share 32 bits, along outputs or along inputs."""
    per_word = 32 // quant.bits
    shapes = {
        "awq": (piece.ins, piece.outs // per_word),
        "gptq": (piece.ins // per_word, piece.outs),
    }
    if quant.method in shapes and 32 % quant.bits == 0:
        field = "quantization_config.bits, hidden_size or intermediate_size"
        _check_shape(tensor, shapes[quant.method], field)


def _check_packing(placed: Iterable[tuple[Tensor, Role]], quant: Quant | None) -> None:
    """Where the config says that weights are packed, some must be: which ones is the file's to
    say, lists of exceptions are seldom complete."""
    if quant is None:
        return
    plain: Tensor | None = None
    for tensor, role in placed:
        if role.place != "layer":
            continue
        if tensor.dtype not in FLOATS:
            return
        name = f"model.layers.{role.layer}.{role.module}"
        if plain is None and role.module.endswith("_proj") and not is_skipped(name, quant):
            plain = tensor
    if plain is not None:
        said = f"config.json's quantization_config says {quant.method}"
        raise _bad(plain, f"is {plain.dtype}, but {said}")


def _check_shape(tensor: Tensor, expected: tuple[int, int], fields: str) -> None:
    if tensor.dtype in _CHECKED and tensor.shape != expected:
        raise _bad(
            tensor, f"has the shape {list(tensor.shape)}, not {list(expected)}, by config.json's "
            f"{fields}",
        )  # fmt: skip


def _bad(tensor: Tensor, problem: str) -> BadFile:
    return BadFile(FILE, f"{tensor.name}: {problem}")


def is_unpacked(tensors: Iterable[Tensor]) -> bool:
    """Is nothing of the language model's layers packed?"""
    return all(
        tensor.dtype in FLOATS for tensor in tensors if tensor.name.endswith((".weight", "qweight"))
    )


def refuse_wish(method: str) -> SettingsError:
    """Only FP8 is made of plain weights while they are loaded."""
    problem = f"{method} is not how this checkpoint is packed: its weights are not packed at all"
    return SettingsError("plan", "quantization", problem, "fp8")


def check_total(stored: Sequence[Part], computed: Geometry) -> None:
    """Raises BadFile if all tensors, once loaded, are far from what the config makes of them."""
    found, wanted = _sum(stored), _sum(computed.parts)
    if computed.architecture in TRAITS and abs(found - wanted) > _TOLERANCE * wanted:
        raise _bad_total(f"{found} bytes when loaded", wanted)


def check_size(
    tensors: Iterable[Tensor], computed: Geometry, made: Iterable[Part], has_encoder: bool
) -> None:
    """Raises BadFile if the checkpoint is smaller or larger than the config lets it be.

    On disk there may be a second copy of a tied table and the draft layers, and (`has_encoder`) an
    encoder of images; what is `made` when the weights are loaded is not there.
    """
    stored = computed.checkpoint_bytes
    if stored is None or computed.architecture not in TRAITS:
        return
    wanted = round(_stored_share(tensors, computed) * (_sum(computed.parts) - _sum(made)))
    more = _extras(computed) + (_ENCODER_SHARE * wanted if has_encoder else 0)
    if not (1 - _TOLERANCE) * wanted <= stored <= (1 + _TOLERANCE) * (wanted + more):
        raise _bad_total(f"{stored} bytes", wanted)


def _bad_total(found: str, wanted: int) -> BadFile:
    said = "num_hidden_layers, hidden_size and the widths in config.json make"
    return BadFile(FILE, f"all tensors: {found}, but {said} {wanted}")


def _stored_share(tensors: Iterable[Tensor], computed: Geometry) -> float:
    """Bytes of a number on disk over those of the same one when it is loaded."""
    if computed.quant is not None:
        return 1.0
    stored = (_WIDTHS[tensor.dtype] for tensor in tensors if _is_matrix(tensor))
    return next(stored, ITEM_BYTES[computed.dtype]) / ITEM_BYTES[computed.dtype]


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.dtype in _WIDTHS and len(tensor.shape) == 2


def _extras(computed: Geometry) -> int:
    """A draft layer is about the last layer, the two tables of words and one more matrix."""
    tables = sum(part.n_bytes for part in computed.parts if part.cut == "vocab")
    if not computed.mtp_layers:
        return tables if computed.is_tied else 0
    last = len(computed.layers) - 1
    layer = sum(part.n_bytes for part in computed.parts if part.layer == last)
    joint = 2 * computed.hidden**2 * ITEM_BYTES[computed.dtype]
    return computed.mtp_layers * (layer + joint + tables)


def _sum(parts: Iterable[Part]) -> int:
    return sum(part.n_bytes for part in parts if part.place != "mtp" and not _is_position(part))


def _is_position(part: Part) -> bool:
    return part.place == "each" and part.cut == "whole"
