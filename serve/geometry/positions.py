"""config.json → how long a context may be, and how much of a head is rotated."""

from collections.abc import Iterator

from serve.geometry.attention import read_head_dim
from serve.geometry.families import Family
from serve.geometry.fields import LONGEST_CONTEXT, Fields, refused

# vLLM 0.32 transformers_utils/model_arch_config_convertor.py: the least of these.
_LENGTHS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length",
    "max_target_positions", "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
# Rope scaling whose max_position_embeddings is the scaled length already (vLLM's config/model.py).
_SCALED = frozenset(
    {
        "su",
        "longrope",
        "llama3",
        "yarn",
        "deepseek_yarn",
        "deepseek_llama_scaling",
        "default",
        "mrope",
    }
)


def read_max_position(text: Fields, family: Family) -> int | None:
    """The longest context as vLLM derives it, in tokens; None where the file names none.

    Source: vLLM 0.32 config/model.py, _get_and_verify_max_len. Raises BadFile.
    """
    named = [text.optional(name, most=LONGEST_CONTEXT) for name in _LENGTHS if text.has(name)]
    lengths = [length for length in named if length is not None]
    if not lengths:
        return family.defaults.get("max_position_embeddings")
    length = text.optional("model_max_length", most=LONGEST_CONTEXT) or min(lengths)
    return length if family.is_length_scaled else int(length * _factor(text))


def _factor(text: Fields) -> float:
    factor = 1.0
    for rope in _ropes(text):
        kind = rope.word("rope_type", "type") or "default"
        named = rope.number("factor")
        if kind not in _SCALED and named is not None:
            factor = named
    return factor


def _ropes(text: Fields) -> Iterator[Fields]:
    """`rope_parameters` (transformers 5) or `rope_scaling`; one, or one per kind of attention."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = text.table(name)
        if rope is None:
            continue
        nested = [rope.table(key) for key in ("full_attention", "sliding_attention")]
        found = [each for each in nested if each is not None]
        yield from found or [rope]
        return


def read_rotary_dim(text: Fields, family: Family) -> int:
    """How many of a head's numbers carry the position. Raises BadFile."""
    if family.is_latent:
        return text.count("qk_rope_head_dim")
    head_dim = read_head_dim(text, family)
    named = text.optional("rotary_dim")
    if named is not None:
        if named > head_dim:
            raise refused("rotary_dim", f"{named} is more than head_dim, {head_dim}")
        return named
    share = _share(text)
    return int(head_dim * (family.rotary_share if share is None else share))


def _share(text: Fields) -> float | None:
    name = "partial_rotary_factor"
    own = text.number(name)
    inside = [rope.number(name) for rope in _ropes(text)]
    share = own if own is not None else next((each for each in inside if each is not None), None)
    if share is not None and share > 1:
        raise refused(name, f"must be at most 1: {share}")
    return share
