"""config.json → the attention of every layer."""

from serve.geometry.families import Family, count_of
from serve.geometry.fields import Fields, refused
from serve.shape import Attention, Heads, Index, Latent, Linear

_FULL, _SLIDING, _LINEAR = "full_attention", "sliding_attention", "linear_attention"


def read_attention(text: Fields, family: Family, layers: int) -> tuple[Attention, ...]:
    """One per layer, in order; equal ones are the same object. Raises BadFile."""
    if family.is_latent:
        return _latents(text, layers)
    kinds = _kinds(text, family, layers)
    made = {kind: _make(kind, text, family) for kind in sorted(set(kinds))}
    return tuple(made[kind] for kind in kinds)


def _kinds(text: Fields, family: Family, layers: int) -> tuple[str, ...]:
    listed = text.words("layer_types")
    if listed is None:
        return _silent_kinds(text, family, layers)
    if len(listed) != layers:
        raise refused("layer_types", f"has {len(listed)} entries for {layers} layers")
    for at, kind in enumerate(listed):
        if kind not in (_FULL, _SLIDING, _LINEAR):
            raise refused(f"layer_types[{at}]", f"cannot be planned: attention of kind {kind!r}")
    _refuse_contradiction(listed, text, layers)
    return listed


def _refuse_contradiction(listed: tuple[str, ...], text: Fields, layers: int) -> None:
    period = text.optional("full_attention_interval")
    if period is not None and listed != _linear_kinds(text, period, layers):
        raise refused("full_attention_interval", f"{period} contradicts layer_types")
    if _SLIDING in listed and not text.flag("use_sliding_window", True):
        raise refused("use_sliding_window", "false contradicts layer_types")


def _silent_kinds(text: Fields, family: Family, layers: int) -> tuple[str, ...]:
    if family.linear_period is not None:
        return _linear_kinds(text, family.linear_period, layers)
    if _window(text, family) is None:
        return (_FULL,) * layers
    if family.window_period is not None:
        named = text.optional("sliding_window_pattern", "_sliding_window_pattern")
        return _every(named or family.window_period, _SLIDING, layers)
    first = 0
    if family.has_window_switch:
        # Qwen: the layers from max_window_layers on (transformers' Qwen2Config).
        first = text.optional("max_window_layers", least=0) or 0
    return tuple(_SLIDING if layer >= first else _FULL for layer in range(layers))


def _linear_kinds(text: Fields, period: int, layers: int) -> tuple[str, ...]:
    return _every(text.optional("full_attention_interval") or period, _LINEAR, layers)


def _every(period: int, others: str, layers: int) -> tuple[str, ...]:
    return tuple(others if (layer + 1) % period else _FULL for layer in range(layers))


def _window(text: Fields, family: Family) -> int | None:
    if not text.flag("use_sliding_window", not family.has_window_switch):
        return None
    return text.optional("sliding_window", least=0) or None


def _make(kind: str, text: Fields, family: Family) -> Attention:
    if kind == _LINEAR:
        return _linear(text)
    window = _window(text, family) if kind == _SLIDING else None
    if kind == _SLIDING and window is None:
        raise refused("sliding_window", "is missing, but layer_types has sliding_attention")
    return _heads(text, family, window)


def _heads(text: Fields, family: Family, window: int | None) -> Heads:
    heads, kv_heads = head_counts(text, family)
    head_dim = read_head_dim(text, family)
    has_gate = family.has_gate and text.flag("attn_output_gate", True)
    return Heads(heads, kv_heads, head_dim, head_dim, window, has_gate)


def head_counts(text: Fields, family: Family) -> tuple[int, int]:
    """(attention heads, KV heads). ChatGLM calls the latter groups."""
    heads = count_of("num_attention_heads", text, family)
    names = ("num_key_value_heads", "multi_query_group_num")
    kv_heads = text.optional(*names) or family.defaults.get(names[0])
    if kv_heads is None:
        raise refused(names[0], f"is missing (without grouping it is {heads}, one per head)")
    if heads % kv_heads:
        raise refused(names[0], f"{kv_heads} does not divide num_attention_heads, {heads}")
    return heads, kv_heads


def read_head_dim(text: Fields, family: Family) -> int:
    """The width of one head: named, or hidden / heads where that is what the engine takes too."""
    named = text.optional("head_dim", "kv_channels")
    if named is not None:
        return named
    hidden, heads = text.count("hidden_size"), count_of("num_attention_heads", text, family)
    if hidden % heads:
        problem = f"is missing, and {heads} heads do not divide hidden_size, {hidden}"
        raise refused("head_dim", problem)
    if family.head_dim not in (None, hidden // heads):
        problem = f"is missing; {hidden} / {heads} is not the {family.head_dim} that is assumed"
        raise refused("head_dim", problem)
    return hidden // heads


def _linear(text: Fields) -> Linear:
    key_heads, value_heads = (
        text.count("linear_num_key_heads"),
        text.count("linear_num_value_heads"),
    )
    if value_heads % key_heads:
        problem = f"{value_heads} is not a multiple of linear_num_key_heads, {key_heads}"
        raise refused("linear_num_value_heads", problem)
    return Linear(
        key_heads,
        value_heads,
        text.count("linear_key_head_dim"),
        text.count("linear_value_head_dim"),
        text.count("linear_conv_kernel_dim"),
        _state_dtype(text),
    )


def _state_dtype(text: Fields) -> str | None:
    """What the recurrent state is kept in, where the file says it (Qwen3.5: float32)."""
    named = text.word("mamba_ssm_dtype")
    if named not in (None, "auto", "float32", "float16", "bfloat16"):
        raise refused("mamba_ssm_dtype", f"cannot be planned: {named!r}")
    return None if named == "auto" else named


def _latents(text: Fields, layers: int) -> tuple[Attention, ...]:
    index = _index(text)
    full, without = _latent(text, index), _latent(text, None)
    has_index = _indexed(text, layers) if index is not None else (False,) * layers
    return tuple(full if own else without for own in has_index)


def _latent(text: Fields, index: Index | None) -> Latent:
    return Latent(
        heads=text.count("num_attention_heads"),
        kv_rank=text.count("kv_lora_rank"),
        rope_dim=text.count("qk_rope_head_dim"),
        nope_dim=text.count("qk_nope_head_dim"),
        value_dim=text.count("v_head_dim"),
        query_rank=text.optional("q_lora_rank"),
        index=index,
    )


def _index(text: Fields) -> Index | None:
    if not text.has("index_topk"):
        return None
    return Index(
        text.count("index_n_heads"), text.count("index_head_dim"), text.count("index_topk")
    )


def _indexed(text: Fields, layers: int) -> tuple[bool, ...]:
    """Which layers have an indexer of their own; the others take the selection of one before.

    Source: vLLM 0.32 model_executor/models/deepseek_v2.py (index_topk_freq, index_topk_pattern).
    """
    pattern = text.word("index_topk_pattern")
    period = text.optional("index_topk_freq") or 1
    offset = text.optional("index_skip_topk_offset", least=0)
    start = 2 if offset is None else offset
    if pattern is not None:
        own = tuple(pattern[layer : layer + 1] != "S" for layer in range(layers))
    else:
        own = tuple(max(layer - start + 1, 0) % period == 0 for layer in range(layers))
    listed = text.words("indexer_types")
    if listed is not None and tuple(kind == "full" for kind in listed) != own:
        raise refused("indexer_types", "contradicts index_topk_freq or index_topk_pattern")
    return own
