"""How long a context may be, and what a catalog entry says of it."""

from dataclasses import replace
from functools import lru_cache

from serve.catalog import ModelSpec
from serve.plan.plan import Wishes
from serve.plan.wishes import refusal
from serve.shape import Geometry, Part

_ROPE_ITEM_BYTES = 2
# What an entry's `engine_args` decide here → the wish that they stand for.
_RECOMMENDED = {
    "kv-cache-dtype": "kv_dtype",
    "dtype": "dtype",
    "max-num-seqs": "max_num_seqs",
    "max-num-batched-tokens": "max_num_batched_tokens",
    "block-size": "block_tokens",
    "enable-expert-parallel": "is_expert_parallel",
}


def with_recommended(spec: ModelSpec, wishes: Wishes) -> Wishes:
    """The wishes, and where there is none what the model's makers recommend."""
    changes = {
        field: value
        for flag, value in spec.engine_args
        if (field := _RECOMMENDED.get(flag.replace("_", "-"))) is not None
        and getattr(wishes, field) is None
    }
    return replace(wishes, **changes) if changes else wishes  # type: ignore[arg-type]


def as_catalogued(spec: ModelSpec, geometry: Geometry, wished_tokens: int) -> Geometry:
    """The geometry with the length that the catalog gives it.

    That is what the model was made for, within what its config allows, or what the entry's
    extension gives, if so long a context is wished and the extension can be switched on here.
    """
    extension = spec.extension_for(wished_tokens)
    if extension is None:
        return _limited(geometry, spec.context_tokens)
    if extension.engine_args:
        # What switches it on replaces what the config says of positions.
        return _extended(geometry, extension.context_tokens)
    return _limited(geometry, extension.context_tokens)


def context_within(geometry: Geometry, wishes: Wishes) -> int:
    """The context to plan for: the wished one or the model's own, the shorter one.

    Where the memory for the KV cache is given an engine has run so: then the wish counts, however
    long. Raises SettingsError where the wish is strict and longer, and where nobody names a length.
    """
    wished, most = wishes.context_tokens, geometry.max_position
    if wished is not None and wishes.available_kv_bytes is not None:
        return wished
    if wished is None and most is None:
        raise refusal("context", "config.json names no length; say how long it should be")
    if wished is not None and is_beyond(geometry, wishes):
        problem = f"{wished:,} tokens are more than the {most:,} that the model allows"
        raise refusal("context", problem, f"at most {most}")
    return min(length for length in (wished, most) if length is not None)


def is_beyond(geometry: Geometry, wishes: Wishes) -> bool:
    """Whether a strict wish is longer than the model's own context, and no engine has run so."""
    wished, most = wishes.context_tokens, geometry.max_position
    is_told = wishes.is_strict and wishes.available_kv_bytes is None
    return is_told and wished is not None and most is not None and wished > most


@lru_cache(maxsize=256)
def _limited(geometry: Geometry, tokens: int) -> Geometry:
    most = geometry.max_position
    return (
        geometry if most is not None and most <= tokens else replace(geometry, max_position=tokens)
    )


@lru_cache(maxsize=256)
def _extended(geometry: Geometry, tokens: int) -> Geometry:
    """With a rope cache of as many rows (cos and sin, on every stage)."""
    added = max(0, tokens - (geometry.max_position or 0)) * geometry.rotary_dim * _ROPE_ITEM_BYTES
    parts = (*geometry.parts, Part("each", "whole", added))
    return replace(geometry, max_position=tokens, parts=parts)
