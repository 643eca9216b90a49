"""config.json → the weights, as parts that share a fate under parallelism."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from serve.geometry.fields import LONGEST_CONTEXT, Fields
from serve.geometry.packing import ITEM_BYTES, VOCAB_UNIT, is_skipped, packed_bytes
from serve.geometry.pieces import FLOAT32, MADE, Frame, Piece, pieces_of
from serve.geometry.traits import Traits, traits_of
from serve.shape import Cut, Geometry, Latent, Layer, Part, Place, Quant

# Kinds of rope scaling that compute the table of the original positions, stretched.
_STRETCHED = ("yarn", "deepseek_yarn")
# Positions in three dimensions may run further than tokens (rotary_embedding/mrope.py).
_MROPE_FACTOR = 4


def parts_of(geometry: Geometry, text: Mapping[str, Any]) -> tuple[Part, ...]:
    """All weights of one copy of the model, by arithmetic. `text`: the config's text part."""
    frame = Frame(geometry.hidden, traits_of(geometry.architecture), text)
    parts = [*_ends(geometry, frame), _rope(geometry, text, frame)]
    cache: dict[Layer, tuple[Piece, ...]] = {}
    for number, layer in enumerate(geometry.layers):
        pieces = cache.get(layer) or cache.setdefault(layer, pieces_of(layer, frame))
        parts += _layer_parts(pieces, number, geometry)
    return tuple(parts)


def made_parts(geometry: Geometry, text: Mapping[str, Any]) -> tuple[Part, ...]:
    """What no checkpoint holds, but every engine makes when it loads one."""
    frame = Frame(geometry.hidden, traits_of(geometry.architecture), text)
    parts = [_rope(geometry, text, frame)]
    for number, layer in enumerate(geometry.layers):
        made = tuple(piece for piece in pieces_of(layer, frame) if piece.name in MADE)
        parts += _layer_parts(made, number, geometry)
    return tuple(parts)


def _ends(geometry: Geometry, frame: Frame) -> list[Part]:
    """The embedding, the output layer, and the norm before it."""
    item = ITEM_BYTES[geometry.dtype]
    rows = -(-geometry.vocab // VOCAB_UNIT) * VOCAB_UNIT
    table = rows * geometry.hidden * item
    places = table_places(geometry, frame.traits)
    norm = Part(norm_place(frame.traits), "whole", geometry.hidden * item)
    return [*(Part(place, "vocab", table) for place in places), norm]


def table_places(geometry: Geometry, traits: Traits) -> tuple[Place, ...]:
    """Where the embedding lies, and the output layer unless it is the same."""
    is_first_everywhere = "embedding" in traits.everywhere
    if geometry.is_tied:
        return ("each",) if is_first_everywhere else ("both",)
    last: Place = "each" if "output" in traits.everywhere else "last"
    return ("each" if is_first_everywhere else "first", last)


def norm_place(traits: Traits) -> Place:
    """Where the last norm lies."""
    return "each" if "norm" in traits.everywhere else "last"


def _rope(geometry: Geometry, text: Mapping[str, Any], frame: Frame) -> Part:
    """The table of cosines and sines, one per stage, of all positions (vLLM rotary_embedding/)."""
    if not frame.traits.has_rope_table:
        return Part("each", "whole", 0)
    item = FLOAT32 if frame.traits.is_rope_wide else ITEM_BYTES[geometry.dtype]
    rows = _rope_rows(geometry, Fields(text)) * _rope_tables(geometry, Fields(text))
    return Part("each", "whole", rows * geometry.rotary_dim * item)


def _rope_rows(geometry: Geometry, text: Fields) -> int:
    named = text.optional("max_position_embeddings", most=LONGEST_CONTEXT)
    rows = named or geometry.max_position or 0
    rope = text.table("rope_parameters") or text.table("rope_scaling")
    if rope is None:
        return rows
    if rope.has("mrope_section"):
        return rows * _MROPE_FACTOR
    original = rope.optional("original_max_position_embeddings", most=LONGEST_CONTEXT)
    factor = rope.number("factor")
    if rope.word("rope_type", "type") in _STRETCHED and original and factor:
        return int(original * factor)
    return rows


def _rope_tables(geometry: Geometry, text: Fields) -> int:
    """The indexer of sparse attention turns its pairs otherwise, by a table of its own."""
    attentions = {layer.attention for layer in geometry.layers}
    is_indexed = any(isinstance(one, Latent) and one.index is not None for one in attentions)
    return 2 if is_indexed and not text.flag("indexer_rope_interleave", False) else 1


def _layer_parts(pieces: tuple[Piece, ...], number: int, geometry: Geometry) -> list[Part]:
    sums: dict[Cut, int] = defaultdict(int)
    for piece in pieces:
        sums[piece.cut] += _bytes(piece, number, geometry)
    return [Part("layer", cut, n_bytes, number) for cut, n_bytes in sums.items()]


def _bytes(piece: Piece, number: int, geometry: Geometry) -> int:
    if piece.unpacked_of and not _is_packed(piece.unpacked_of, number, geometry.quant):
        return 0
    quant = _packing(piece, number, geometry.quant)
    if quant is not None:
        return piece.copies * packed_bytes(piece.outs, piece.ins, quant)
    item = piece.item_bytes or ITEM_BYTES[geometry.dtype]
    return piece.copies * piece.outs * piece.ins * item


def _packing(piece: Piece, number: int, quant: Quant | None) -> Quant | None:
    return quant if piece.is_linear and _is_packed(piece.name, number, quant) else None


def _is_packed(name: str, number: int, quant: Quant | None) -> bool:
    return quant is not None and not is_skipped(f"model.layers.{number}.{name}", quant)
