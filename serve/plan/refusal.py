"""What does not fit, with the sum that shows it and what would help."""

from serve.errors import DoesNotFit
from serve.geometry import weights_per_stage
from serve.plan.attempt import LEAST_CONTEXT_TOKENS, Attempt, Question
from serve.plan.kv import Pool, pool
from serve.plan.plan import Cure, Subject
from serve.shape import Geometry, Parallel
from serve.units import show_bytes


def refusal(
    question: Question, attempt: Attempt, model: str, cures: tuple[Cure, ...]
) -> DoesNotFit:
    """The error for the best attempt there was, per device."""
    estimate = attempt.estimate
    device = attempt.place.device
    context = estimate.layout.context_tokens
    kv_bytes = max(estimate.needed_kv_bytes, question.wishes.kv_cache_bytes or 0)
    what = f"KV cache for {context:,} tokens"
    if question.requests > 1:
        what = f"KV cache for {question.requests} x {context:,} tokens"
    terms = tuple((term.name, term.n_bytes) for term in estimate.terms)
    parts = (*terms, (what, kv_bytes))
    return DoesNotFit(
        model=model,
        device=device,
        needed_bytes=sum(size for _, size in parts),
        free_bytes=room(attempt),
        parts=parts,
        remedy=_remedy(question, attempt, pool(question.geometry, 0, estimate.layout, device)),
        cures=tuple((cure.change, cure.price) for cure in cures),
    )


def room(attempt: Attempt) -> int:
    """What the engine may take of the device that decides: its share, and no more than is free."""
    estimate = attempt.estimate
    if not attempt.place.cards:
        return estimate.free_bytes
    share = int(estimate.total_bytes * estimate.layout.gpu_memory_utilization)
    return max(0, min(share, estimate.free_bytes - estimate.outside_bytes))


def no_gpu(subject: Subject, geometry: Geometry, problem: str | None) -> DoesNotFit:
    """GPUs were asked for, but there are none."""
    needed = weights_per_stage(geometry, Parallel())[0]
    return DoesNotFit(
        model=subject.spec.name,
        device="cuda",
        needed_bytes=needed,
        free_bytes=0,
        parts=(("weights", needed),),
        remedy=problem or "no NVIDIA GPU was found; set engine.device to cpu",
    )


def _remedy(question: Question, attempt: Attempt, cache: Pool) -> str:
    """In the words of our settings; for those who do not read further."""
    estimate, wished = attempt.estimate, question.wishes.kv_cache_bytes
    left = room(attempt) - sum(term.n_bytes for term in estimate.terms)
    enough = estimate.needed_kv_bytes
    if wished is not None and enough <= left:
        if wished < enough:
            return f"raise engine.kv_cache to at least {show_bytes(enough)}, or leave it out"
        return f"lower engine.kv_cache to at most {show_bytes(left)}, or leave it out"
    longest = cache.longest_context(left // question.requests, estimate.layout.context_tokens)
    if longest >= LEAST_CONTEXT_TOKENS:
        return f"lower engine.context to at most {longest} tokens, or leave it out"
    more = "free or add GPU memory" if attempt.place.cards else "free some memory"
    return f"choose a smaller model or a quantised variant, or {more}"
