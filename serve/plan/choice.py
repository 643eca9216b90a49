"""The decision: of all places and limits, the first that holds what is wished."""

from collections.abc import Iterable, Iterator

from serve.plan.attempt import (
    SMALLER_BATCHES,
    Attempt,
    Batches,
    Question,
    default_batches,
    weigh,
    weigh_longest,
)
from serve.plan.search import Place, on_processor, places

Places = tuple[Place, ...]


def choose(question: Question) -> Attempt:
    """The best place with limits that fit; where nothing fits, the attempt that misses least.

    In this order: the whole wish with vLLM's own batches on the fewest cards; a context shorter
    than the model's, if nobody asked for one, on whatever holds the longest; the same with smaller
    batches.
    """
    for place in _candidates(question):
        attempt = weigh(question, place, question.context_tokens)
        if attempt.fits:
            return attempt
    where = tuple(_candidates(question))
    for batches in _steps(question):
        best = _longest(question, where, batches)
        if best is not None:
            return best
    return _least_missing(question, where)


def _candidates(question: Question) -> Iterable[Place]:
    """Every place on the device that is wished, or on the machine's own kind."""
    wishes, machine = question.wishes, question.machine
    device = machine.device if wishes.device == "auto" else wishes.device
    if device == "cpu":
        return (on_processor(wishes),)
    return places(question.geometry, machine, wishes)


def _steps(question: Question) -> Iterator[Batches | None]:
    if question.wishes.context_tokens is None:
        yield None
    if question.may_shrink:
        yield from SMALLER_BATCHES


def _longest(question: Question, where: Places, batches: Batches | None) -> Attempt | None:
    """The attempt with the longest context; the first of equals, on the fewest cards."""
    best: Attempt | None = None
    for place in where:
        if batches is not None and not _are_smaller(question, place, batches):
            continue
        attempt = weigh_longest(question, place, batches)
        if attempt is not None and (best is None or _context(attempt) > _context(best)):
            best = attempt
    return best


def _are_smaller(question: Question, place: Place, batches: Batches) -> bool:
    tokens, sequences = default_batches(question, place)
    return batches[0] < tokens or batches[1] < sequences


def _context(attempt: Attempt) -> int:
    return attempt.estimate.layout.context_tokens


def _least_missing(question: Question, where: Places) -> Attempt:
    """With the shortest context that would be an answer, and vLLM's own batches."""
    attempts = [weigh(question, place, question.least_context_tokens) for place in where]
    least = min(attempt.estimate.missing_bytes for attempt in attempts)
    # Of those that miss about as much the first is the best.
    return next(
        attempt
        for attempt in attempts
        if attempt.estimate.missing_bytes <= least + attempt.estimate.total_bytes // 20
    )
