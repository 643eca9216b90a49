"""What the reader of a plan should know beside its figures."""

from serve.plan.attempt import Attempt, Question
from serve.plan.capability import BFLOAT16
from serve.units import show_bytes


def notes_of(question: Question, attempt: Attempt) -> tuple[str, ...]:
    """Sentences, the weightiest first; empty where everything is as one would expect."""
    found = (
        _beyond(question, attempt),
        _narrow(question, attempt),
        _half_precision(question, attempt),
    )
    ours = (note for note in found if note is not None)
    return (*of_decision(question, attempt), *ours, *question.geometry.notes)


def of_decision(question: Question, attempt: Attempt) -> tuple[str, ...]:
    """Those that say what was decided otherwise than one would expect."""
    found = (
        _shortened(question, attempt),
        _smaller_batches(attempt),
        _busy_cards(question, attempt),
        _across(attempt),
    )
    return tuple(note for note in found if note is not None)


def _beyond(question: Question, attempt: Attempt) -> str | None:
    """That an engine takes so long a context only when told how."""
    most = question.geometry.max_position
    if most is None or attempt.estimate.layout.context_tokens <= most:
        return None
    return f"config.json allows {most:,} tokens: an engine needs an extension for more"


def _narrow(question: Question, attempt: Attempt) -> str | None:
    """That it fits by less than the estimates may be off."""
    estimate, wishes = attempt.estimate, question.wishes
    is_told = wishes.available_kv_bytes is not None or wishes.kv_cache_bytes is not None
    spare = estimate.available_kv_bytes - estimate.needed_kv_bytes
    if not attempt.fits or not attempt.place.cards or is_told or spare >= attempt.spread_bytes:
        return None
    return (
        f"it fits with {show_bytes(spare)} to spare, and the estimates may be off by "
        f"{show_bytes(attempt.spread_bytes)}: the first start will tell"
    )


def _half_precision(question: Question, attempt: Attempt) -> str | None:
    """vLLM falls back by itself (config/model.py, _resolve_auto_dtype)."""
    is_old = any(card.compute_capability < BFLOAT16 for card in attempt.place.cards)
    if not is_old or question.geometry.dtype != "bfloat16":
        return None
    return "these cards do not compute in bfloat16: the engine takes float16"


def _shortened(question: Question, attempt: Attempt) -> str | None:
    context = attempt.estimate.layout.context_tokens
    if context >= question.context_tokens or not attempt.fits:
        return None
    return f"the context is shortened to {context:,} tokens: more does not fit"


def _smaller_batches(attempt: Attempt) -> str | None:
    if not attempt.is_reduced:
        return None
    layout = attempt.estimate.layout
    return (
        f"batches are limited to {layout.max_num_batched_tokens:,} tokens and "
        f"{layout.max_num_seqs:,} sequences: activations for more do not fit"
    )


def _busy_cards(question: Question, attempt: Attempt) -> str | None:
    """Only where others' memory lowers what the engine may take."""
    share, wished = attempt.estimate.layout.gpu_memory_utilization, question.wishes
    if not attempt.place.cards or wished.gpu_memory_utilization is not None:
        return None
    if share >= question.rules.default_utilization:
        return None
    return f"only {share:.1%} of each card's memory is planned with: no more is free"


def _across(attempt: Attempt) -> str | None:
    if not attempt.place.is_across:
        return None
    return "tensor parallel ranks talk over PCIe here: no island of NVLink has as many cards"
