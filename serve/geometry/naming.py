"""The names of a checkpoint's tensors → the layer they are of, and what parallelism makes of them.

Names are those of the published checkpoints of the architectures in `traits.py`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from serve.shape import Cut, Place, Tensor

# A layer of the language model; encoders of images and sounds have layers of their own.
_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.(.+)$")
_ENCODER = re.compile(
    r"(?:^|\.)(?:visual|vision\w*|vit|image\w*|audio\w*|mm_projector|multi_modal\w*)\."
)
_DRAFT = re.compile(r"(?:^|\.)mtp\.")
# Made again when the model is loaded, or never loaded.
_IGNORED = re.compile(
    r"(?:rotary_emb\.inv_freq|rotary_pos_emb\.inv_freq|masked_bias|attn\.bias|\.g_idx)$"
)
_EXPERT_NUMBER = re.compile(r"\.experts\.\d+\.")
# What a tensor of a quantised matrix is called besides "weight".
_TAIL = re.compile(
    r"[._](?:weight|bias|weight_scale_inv|weight_scale|weight_packed|weight_shape|input_scale"
    r"|weight_zero_point|qweight|qzeros|scales|blocks)$"
)
# Mixtral's and MiniMax's names of an expert's matrices.
_EXPERT_WORDS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}

# What a name in a layer holds → its cut; the first that matches counts.
_CUTS: tuple[tuple[str, Cut], ...] = (
    (r"(?:^|\.)shared_expert_gate\.", "whole"),
    (r"(?:^|\.)shared_experts?\.", "shared"),
    (r"(?:^|\.)experts\.down_proj_bias$", "whole"),
    (r"(?:^|\.)experts\.", "experts"),
    (r"(?:^|\.)(?:gate|router)\.(?!proj)", "whole"),
    (r"(?:^|\.)indexer\.", "whole"),
    (r"e_score_correction_bias$", "whole"),
    (r"(?:layernorm|norm)\.\w+$", "whole"),
    (r"(?:q_a_proj|kv_a_proj_with_mqa)\.", "whole"),
    (r"(?:o_proj|down_proj|dense|dense_4h_to_h|out_proj)\.bias$", "whole"),
    (r"(?:^|\.)(?:k_proj|v_proj)\.", "kv"),
    (r"(?:^|\.)sinks$", "split"),
    (r"linear_attn\.", "split"),
    (r"(?:^|\.)(?:q|q_b|kv_b|o|gate|up|gate_up|down|out)_proj\.", "split"),
    (r"(?:^|\.)(?:dense|dense_h_to_4h|dense_4h_to_h)\.", "split"),
    (r"(?:^|\.)(?:query_key_value|qkv_proj)\.", "split"),
)
_ENDS: tuple[tuple[re.Pattern[str], Place, Cut], ...] = (
    (re.compile(r"(?:embed_tokens|word_embeddings|wte)\.\w+$"), "first", "vocab"),
    (re.compile(r"(?:lm_head|output_layer)\.\w+$"), "last", "vocab"),
    (re.compile(r"(?:^|\.)(?:norm|final_layernorm|ln_f)\.\w+$"), "last", "whole"),
)


@dataclass(frozen=True, slots=True)
class Role:
    """What a tensor is. `layer` -1: of none. `module`: its path below the layer without an expert's
    number and the tensor's own word ("mlp.experts.down_proj"); outside of layers its whole name.

    `is_known` False: nobody told us; it counts as whole.
    """

    place: Place
    cut: Cut
    layer: int
    module: str
    is_known: bool = True


def place(tensors: Iterable[Tensor], layers: int) -> list[tuple[Tensor, Role]]:
    """Every tensor that is loaded, with its role in a model of so many layers."""
    found = ((tensor, role_of(tensor.name, layers)) for tensor in tensors)
    return [(tensor, role) for tensor, role in found if role is not None]


def role_of(name: str, layers: int) -> Role | None:
    """The role of a tensor in a model of so many layers; None if nothing of it is loaded."""
    if _IGNORED.search(name):
        return None
    if _DRAFT.search(name):
        return Role("mtp", "whole", -1, name)
    if _ENCODER.search(name):
        return Role("first", "whole", -1, name)
    found = _LAYER.search(name)
    if found is None:
        return _end(name)
    number, rest = int(found[1]), found[2]
    if number >= layers:
        return Role("mtp", "whole", number, rest)
    cut, module = _in_layer(_EXPERT_NUMBER.sub(".experts.", rest))
    return Role("layer", cut or "whole", number, module, cut is not None)


@lru_cache(maxsize=1024)
def _in_layer(name: str) -> tuple[Cut | None, str]:
    """(cut, module) of a tensor's name below its layer, without an expert's number."""
    cut = next((cut for pattern, cut in _CUTS if re.search(pattern, name)), None)
    module = _TAIL.sub("", name)
    head, _, last = module.rpartition(".")
    return cut, f"{head}.{_EXPERT_WORDS[last]}" if last in _EXPERT_WORDS else module


def _end(name: str) -> Role:
    for pattern, place, cut in _ENDS:
        if pattern.search(name):
            return Role(place, cut, -1, name)
    return Role("first", "whole", -1, name, False)
