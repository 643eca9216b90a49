"""A decision as a verdict: what people read who start nothing."""

from serve.hardware import Gpu
from serve.plan.attempt import Attempt, Batches, Question, weigh
from serve.plan.notes import notes_of
from serve.plan.plan import Cure, Estimate, Speed, Verdict
from serve.plan.search import Place, alike
from serve.plan.speed import speed, speed_cpu


def verdict_of(question: Question, attempt: Attempt, name: str, cures: tuple[Cure, ...]) -> Verdict:
    """The verdict; `cures` are those of an attempt that does not fit."""
    cards = attempt.place.cards
    return Verdict(
        model=name,
        device=attempt.place.device,
        devices=tuple(card.name for card in cards) or (question.machine.cpu.name,),
        estimate=attempt.estimate,
        cures=cures,
        speed=_speed(question, attempt),
        basis=basis_of(question, attempt),
        weights_basis=question.geometry.basis,
        notes=notes_of(question, attempt),
        copies=_copies(question, attempt) if attempt.fits else 0,
    )


def basis_of(question: Question, attempt: Attempt) -> str:
    """Where the room for the KV cache comes from: "given", "measured" or "estimated"."""
    wishes = question.wishes
    if wishes.available_kv_bytes is not None or wishes.kv_cache_bytes is not None:
        return "given"
    return "measured" if attempt.is_calibrated else "estimated"


def _speed(question: Question, attempt: Attempt) -> Speed | None:
    estimate = attempt.estimate
    streams = question.wishes.concurrency or _streams(estimate)
    if attempt.place.cards:
        return speed(question.geometry, attempt.place.cards, estimate.layout, streams)
    return speed_cpu(question.geometry, question.machine.cpu, estimate.layout, streams)


def _streams(estimate: Estimate) -> int:
    """As many requests of full length as run at once."""
    return max(1, min(int(estimate.max_concurrency), estimate.layout.max_num_seqs))


def _copies(question: Question, attempt: Attempt) -> int:
    """How many engines like this the machine holds, each on cards of its own."""
    place, layout = attempt.place, attempt.estimate.layout
    if not place.cards:
        return 1
    batches = (layout.max_num_batched_tokens, layout.max_num_seqs)
    count = 0
    for cards in alike(question.machine, place):
        there = Place(cards, place.parallel)
        # Idle cards of one kind need not be weighed one by one.
        if _is_same(cards, place.cards) or _holds(question, there, layout.context_tokens, batches):
            count += 1
    return max(1, count)


def _is_same(cards: tuple[Gpu, ...], others: tuple[Gpu, ...]) -> bool:
    return all(map(_is_alike, cards, others))


def _is_alike(card: Gpu, other: Gpu) -> bool:
    return card.free_bytes == other.free_bytes and card.total_bytes == other.total_bytes


def _holds(question: Question, place: Place, context_tokens: int, batches: Batches) -> bool:
    return weigh(question, place, context_tokens, batches).fits
