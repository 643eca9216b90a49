"""Putting the KV cache into the room that is left, and saying why it does not go in."""

from dataclasses import dataclass
from typing import Literal

from serve.errors import DoesNotFit
from serve.plan.memory import KvCache
from serve.plan.plan import Subject, Wishes
from serve.units import show_bytes

# Below this nobody can work with a chat model, so we refuse instead of shortening further.
LEAST_CONTEXT_TOKENS = 2048

Parts = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Room:
    """What a device has, and what goes into it before the KV cache. Bytes per device."""

    device: Literal["cpu", "cuda"]
    free_bytes: int
    parts: Parts
    kv: KvCache

    @property
    def left_bytes(self) -> int:
        return self.free_bytes - sum(size for _, size in self.parts)


@dataclass(frozen=True, slots=True)
class Fit:
    """A KV cache that goes in, and the context that goes into it."""

    context_tokens: int
    kv_bytes: int
    is_shortened: bool

    @property
    def note(self) -> str | None:
        if not self.is_shortened:
            return None
        return f"the context is shortened to {self.context_tokens:,} tokens: more does not fit"


def fit_kv(room: Room, offered_bytes: int, context_tokens: int, wishes: Wishes) -> Fit | None:
    """A KV cache of the wished size, else of the offered one; None if it cannot be had.

    A context that does not fit is shortened, unless somebody asked for it.
    """
    size = wishes.kv_cache_bytes
    if size is None:
        size = room.kv.whole_blocks(offered_bytes)
    if size > room.left_bytes:
        return None
    if room.kv.bytes_for(context_tokens) <= size:
        return Fit(context_tokens, size, is_shortened=False)
    shorter = room.kv.longest_context(size)
    if wishes.context_tokens is not None or shorter < min(LEAST_CONTEXT_TOKENS, context_tokens):
        return None
    return Fit(shorter, size, is_shortened=True)


def refusal(subject: Subject, room: Room, context_tokens: int, wishes: Wishes) -> DoesNotFit:
    """The sum that does not go in, and what would help."""
    least = context_tokens
    if wishes.context_tokens is None:
        least = min(LEAST_CONTEXT_TOKENS, context_tokens)
    kv_bytes = max(room.kv.bytes_for(least), wishes.kv_cache_bytes or 0)
    parts = (*room.parts, (f"KV cache for {least:,} tokens", kv_bytes))
    return DoesNotFit(
        model=subject.spec.name,
        device=room.device,
        needed_bytes=sum(size for _, size in parts),
        free_bytes=room.free_bytes,
        parts=parts,
        remedy=_remedy(room, least, wishes),
    )


def _remedy(room: Room, least: int, wishes: Wishes) -> str:
    wished, enough = wishes.kv_cache_bytes, room.kv.bytes_for(least)
    if wished is not None and enough <= room.left_bytes:
        if wished < enough:
            return f"raise engine.kv_cache to at least {show_bytes(enough)}, or leave it out"
        return f"lower engine.kv_cache to at most {show_bytes(room.left_bytes)}, or leave it out"
    longest = room.kv.longest_context(room.left_bytes)
    if longest >= LEAST_CONTEXT_TOKENS:
        return f"lower engine.context to at most {longest} tokens, or leave it out"
    more = "free some memory" if room.device == "cpu" else "free or add GPU memory"
    return f"choose a smaller model or a quantised variant, or {more}"
