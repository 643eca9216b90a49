"""config.json → the shape of a model: everything of its `Geometry` but the bytes of its weights."""

from collections.abc import Mapping
from typing import Any

from serve.errors import SettingsError
from serve.geometry.attention import read_attention
from serve.geometry.families import UNNAMED, Family, architecture_of, count_of, family_of
from serve.geometry.feed_forward import read_feed_forward
from serve.geometry.fields import MOST_LAYERS, Fields, read_fields, refused
from serve.geometry.positions import read_max_position, read_rotary_dim
from serve.geometry.quant import read_format
from serve.geometry.unplannable import refuse_unplannable
from serve.shape import Attention, FeedForward, Geometry, Layer

# What lies beside the language model of one that sees or hears.
_SENSES = ("vision_config", "audio_config")
_Dtype = tuple[str, tuple[str, ...]]  # with notes
_DTYPES: Mapping[str, str] = {
    "half": "float16",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float": "float32",
    "float32": "float32",
}


def read_shape(
    config: Mapping[str, Any], dtype: str | None = None, quantization: str | None = None
) -> Geometry:
    """The shape in a parsed config.json; `parts` is empty, `basis` "config".

    `dtype`, `quantization`: the operator's, by the engine's names; None and "auto": the file's.
    Raises BadFile("config.json", "field: why") for what is missing, wrong or contradicts itself,
    and for kinds of attention that no rule here describes; SettingsError for an impossible wish.
    """
    text, whole = read_fields(config)
    architecture = architecture_of(text, whole)
    refuse_unplannable(architecture, text, whole)
    family = family_of(architecture, text)
    layers = text.count("num_hidden_layers", "num_layers", most=MOST_LAYERS)
    attention = read_attention(text, family, layers)
    feed_forward = read_feed_forward(text, family, layers)
    kept, dtype_notes = _dtype(text, whole, family, dtype)
    form = read_format(text, whole, quantization)
    return Geometry(
        architecture=architecture,
        layers=_layers(attention, feed_forward),
        hidden=text.count("hidden_size"),
        vocab=_vocab(text, family),
        dtype=kept,
        max_position=read_max_position(text, family),
        rotary_dim=read_rotary_dim(text, family),
        is_tied=_is_tied(text, whole, family),
        parts=(),
        basis="config",
        quant=form.quant,
        kv_dtype=form.kv_dtype,
        mtp_layers=_mtp_layers(text),
        notes=(*_model_notes(architecture, family, whole), *dtype_notes, *form.notes),
    )


def _layers(
    attention: tuple[Attention, ...], feed_forward: tuple[FeedForward, ...]
) -> tuple[Layer, ...]:
    made: dict[tuple[int, int], Layer] = {}
    for pair in zip(attention, feed_forward, strict=True):
        made.setdefault((id(pair[0]), id(pair[1])), Layer(*pair))
    return tuple(made[id(a), id(f)] for a, f in zip(attention, feed_forward, strict=True))


def _vocab(text: Fields, family: Family) -> int:
    # ChatGLM's tables have the padded number of rows.
    return text.optional("padded_vocab_size") or count_of("vocab_size", text, family)


def _is_tied(text: Fields, whole: Fields, family: Family) -> bool:
    name = "tie_word_embeddings"
    return text.flag(name, whole.flag(name, family.is_tied))


def _mtp_layers(text: Fields) -> int:
    """Draft layers behind the last: DeepSeek and GLM, Qwen3.5, MiniMax."""
    for name in ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules"):
        found = text.optional(name, least=0, most=MOST_LAYERS)
        if found is not None:
            return found
    return 0


def _dtype(text: Fields, whole: Fields, family: Family, wished: str | None) -> _Dtype:
    if wished is not None and wished != "auto":
        return _wished_dtype(wished, family), ()
    named = text.word("dtype", "torch_dtype") or whole.word("dtype", "torch_dtype")
    if named is None:
        return "bfloat16", ("config.json names no dtype: bfloat16 is assumed",)
    dtype = _DTYPES.get(named.removeprefix("torch."))
    if dtype is None:
        raise refused("dtype", f"cannot be planned: {named!r}")
    if dtype == "float32" or (dtype == "float16" and family.overflows_float16):
        return "bfloat16", (f"the {dtype} weights are loaded as bfloat16",)
    return dtype, ()


def _wished_dtype(wished: str, family: Family) -> str:
    dtype = _DTYPES.get(wished)
    if dtype is None:
        known = ", ".join(("auto", *_DTYPES))
        raise SettingsError("plan", "dtype", f"is not a number format: {wished!r}", known)
    if dtype == "float16" and family.overflows_float16:
        raise SettingsError("plan", "dtype", "this model overflows in float16", "bfloat16")
    return dtype


def _model_notes(architecture: str, family: Family, whole: Fields) -> tuple[str, ...]:
    notes = []
    if not family.is_known:
        name = "is not named" if architecture == UNNAMED else f"{architecture} is not known here"
        notes.append(f"the architecture {name}: it is read as a plain transformer")
    if any(whole.has(name) for name in _SENSES):
        notes.append("its parts for images or sound are counted only from the weights' headers")
    return tuple(notes)
