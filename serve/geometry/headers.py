"""Safetensors headers → the weights as they are loaded, exactly, as parts that share a fate."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serve.geometry.naming import Role
from serve.geometry.packing import ITEM_BYTES, VOCAB_UNIT
from serve.geometry.parts import made_parts, norm_place, table_places
from serve.geometry.pieces import FLOAT32
from serve.geometry.traits import Traits, traits_of
from serve.shape import Cut, Geometry, Heads, Part, Place, Tensor

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
# Kept in float32 whatever the model's own format is (vLLM 0.32 model_executor/models/).
_WIDE = ("e_score_correction_bias", "A_log", "indexer.k_norm")
_SCALES = ("weight_scale_inv", "weight_scale", "input_scale")
_MOST_NAMED = 3
# Norms over all heads at once are divided as the heads are.
_FULL_NORMS: Mapping[str, Cut] = {"self_attn.q_norm": "split", "self_attn.k_norm": "kv"}

Key = tuple[Place, Cut, int]


def parts_in(
    placed: Iterable[tuple[Tensor, Role]], geometry: Geometry, text: Mapping[str, Any]
) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """(the weights, notes), from the headers of the whole checkpoint.

    Names that nobody told us count as whole on every rank. What an engine makes when it loads (the
    table of positions, MLA's absorbed copies) is added by arithmetic.
    """
    sums: dict[Key, int] = defaultdict(int)
    unknown: list[str] = []
    loader = Loader(geometry)
    for tensor, role in placed:
        if loader.leaves_out(tensor, role):
            continue
        if not role.is_known:
            unknown.append(tensor.name)
        for key, n_bytes in loader.shares(tensor, role):
            sums[key] += n_bytes
    parts = tuple(Part(place, cut, n_bytes, layer) for (place, cut, layer), n_bytes in sums.items())
    return (*parts, *made_parts(geometry, text)), _notes(unknown)


def _notes(unknown: Sequence[str]) -> tuple[str, ...]:
    if not unknown:
        return ()
    named = ", ".join(unknown[:_MOST_NAMED]) + (", …" if len(unknown) > _MOST_NAMED else "")
    return (f"{len(unknown)} tensors of unknown kind count as whole on every card: {named}",)


class Loader:
    """What vLLM makes of a stored tensor of this model."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._traits: Traits = traits_of(geometry.architecture)
        self._item = ITEM_BYTES[geometry.dtype]

    def leaves_out(self, tensor: Tensor, role: Role) -> bool:
        """A second copy of a tied table, and zero points that a symmetric packing does not use."""
        if role.cut == "vocab" and role.place == "last" and self._geometry.is_tied:
            return True
        quant = self._geometry.quant
        if quant is None:
            return False
        if tensor.name.endswith("qzeros"):
            return quant.method == "gptq" and not quant.has_zero_points
        return role.module.endswith("indexer.wk") and tensor.name.endswith(_SCALES)

    def shares(self, tensor: Tensor, role: Role) -> Iterable[tuple[Key, int]]:
        """Where the tensor's bytes go, mostly to one place."""
        n_bytes = self.loaded_bytes(tensor, role)
        if role.module.endswith(("query_key_value", "qkv_proj")):
            return self._fused(n_bytes, role)
        return [((self._place(role), self._cut(role), role.layer), n_bytes)]

    def loaded_bytes(self, tensor: Tensor, role: Role) -> int:
        """Bytes once it is loaded: 16 bit for most, the vocabulary padded."""
        count = math.prod(tensor.shape)
        if tensor.dtype in FLOATS:
            n_bytes = count * self._item_bytes(tensor, role)
        elif role.module.endswith("indexer.wk"):
            n_bytes = count * self._item  # vLLM joins it with a matrix in 16 bit
        else:
            n_bytes = tensor.n_bytes
        if role.cut == "vocab" and tensor.shape and tensor.shape[0]:
            rows = tensor.shape[0]
            return n_bytes // rows * (-(-rows // VOCAB_UNIT) * VOCAB_UNIT)
        return n_bytes

    def _item_bytes(self, tensor: Tensor, role: Role) -> int:
        is_router = role.module.endswith((".gate", ".router")) and self._traits.is_router_wide
        is_wide = is_router or any(word in tensor.name for word in _WIDE)
        quant = self._geometry.quant
        if quant is not None and quant.method in ("fp8", "int8"):
            is_wide = is_wide or tensor.name.endswith(_SCALES)
        return FLOAT32 if is_wide else self._item

    def _place(self, role: Role) -> Place:
        if role.cut == "vocab":
            places = table_places(self._geometry, self._traits)
            return places[-1] if role.place == "last" else places[0]
        return norm_place(self._traits) if role.place == "last" else role.place

    def _cut(self, role: Role) -> Cut:
        if self._traits.qk_norm == "full":
            return _FULL_NORMS.get(role.module, role.cut)
        return role.cut

    def _fused(self, n_bytes: int, role: Role) -> Iterable[tuple[Key, int]]:
        """Queries, keys and values in one matrix: the first are divided, the others by KV heads."""
        attention = self._geometry.layers[role.layer].attention
        if not isinstance(attention, Heads):
            return [((role.place, "split", role.layer), n_bytes)]
        queries = attention.heads * attention.head_dim
        others = attention.kv_heads * (attention.head_dim + attention.value_dim)
        keys = n_bytes * others // (queries + others)
        return [
            ((role.place, "split", role.layer), n_bytes - keys),
            ((role.place, "kv", role.layer), keys),
        ]
