"""config.json → the feed-forward block of every layer."""

from serve.geometry.families import Family
from serve.geometry.fields import LARGEST_COUNT, Fields, refused
from serve.shape import Dense, Experts, FeedForward

_EXPERT_COUNTS = ("num_experts", "n_routed_experts", "num_local_experts")
_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token")


def read_feed_forward(text: Fields, family: Family, layers: int) -> tuple[FeedForward, ...]:
    """One per layer, in order; equal ones are the same object. Raises BadFile."""
    is_mixture = _mixtures(text, family, layers)
    experts = _experts(text, family) if any(is_mixture) else None
    dense = None if all(is_mixture) else Dense(_dense_width(text))
    chosen = {True: experts, False: dense}
    return tuple(found for here in is_mixture if (found := chosen[here]) is not None)


def _mixtures(text: Fields, family: Family, layers: int) -> tuple[bool, ...]:
    listed = text.words("mlp_layer_types")
    if listed is not None and family.spread != "none":
        return _listed(listed, text, layers)
    if family.spread == "none":
        return (False,) * layers
    if family.spread == "all":
        return (True,) * layers
    return _stepped(text, layers) if family.spread == "step" else _after_first(text, layers)


def _listed(listed: tuple[str, ...], text: Fields, layers: int) -> tuple[bool, ...]:
    if len(listed) != layers:
        raise refused("mlp_layer_types", f"has {len(listed)} entries for {layers} layers")
    for at, kind in enumerate(listed):
        if kind not in ("dense", "sparse"):
            raise refused(f"mlp_layer_types[{at}]", f"must be dense or sparse: {kind!r}")
    is_mixture = tuple(kind == "sparse" for kind in listed)
    if text.has("first_k_dense_replace") and is_mixture != _after_first(text, layers):
        raise refused("mlp_layer_types", "contradicts first_k_dense_replace")
    return is_mixture


def _stepped(text: Fields, layers: int) -> tuple[bool, ...]:
    step = text.optional("decoder_sparse_step") or 1
    dense = set(text.counts("mlp_only_layers") or ())
    if dense and max(dense) >= layers:
        raise refused("mlp_only_layers", f"names layer {max(dense)} of {layers}")
    return tuple(layer not in dense and (layer + 1) % step == 0 for layer in range(layers))


def _after_first(text: Fields, layers: int) -> tuple[bool, ...]:
    first = text.optional("first_k_dense_replace", least=0)
    if first is None:
        raise refused("first_k_dense_replace", "is missing")
    if first > layers:
        raise refused("first_k_dense_replace", f"{first} is more than the {layers} layers")
    period = text.optional("moe_layer_freq") or 1
    return tuple(layer >= first and layer % period == 0 for layer in range(layers))


def _dense_width(text: Fields) -> int:
    return text.count("intermediate_size", "ffn_hidden_size")


def _experts(text: Fields, family: Family) -> Experts:
    count, per_token = text.count(*_EXPERT_COUNTS), text.count(*_PER_TOKEN)
    if per_token > count:
        raise refused("num_experts_per_tok", f"{per_token} is more than the {count} experts")
    width = text.count(family.expert_width)
    return Experts(count, per_token, width, _shared_width(text, width))


def _shared_width(text: Fields, width: int) -> int:
    """What every token passes besides: a width of its own, or so many experts more."""
    names = ("shared_expert_intermediate_size", "shared_intermediate_size")
    own = text.optional(*names, least=0)
    if own is not None:
        return own
    return width * (text.optional("n_shared_experts", least=0, most=LARGEST_COUNT // width) or 0)
