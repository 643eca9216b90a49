"""Changes that make a model fit, each tried before it is offered, the least loss first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil

from serve.geometry import weights_per_stage
from serve.plan.attempt import (
    LEAST_CONTEXT_TOKENS,
    SMALLER_BATCHES,
    Attempt,
    Question,
    free_share,
    with_wishes,
)
from serve.plan.capability import can_hold_fp8_keys
from serve.plan.choice import choose
from serve.plan.elsewhere import MOST_UTILIZATION, larger_cards, more_cards, on_the_processor
from serve.plan.plan import Cure
from serve.shape import Geometry
from serve.units import show_bytes

Variants = tuple[tuple[str, Geometry], ...]

MOST_CURES = 3


@dataclass(frozen=True, slots=True)
class Refused:
    """What does not fit: the question, its best attempt, and the model in other formats."""

    question: Question
    attempt: Attempt
    variants: Variants = ()


Propose = Callable[[Refused], Iterator[Cure]]


def cures(question: Question, attempt: Attempt, variants: Variants) -> tuple[Cure, ...]:
    """The three cheapest ways out, cheapest first: of the settings, of the weights, of the machine.

    Each makes the model fit by itself, as `choose` finds it with the change made.
    """
    refused = Refused(question, attempt, variants)
    found: list[Cure] = []
    for propose in _PROPOSALS:
        for cure in propose(refused):
            found.append(cure)
            if len(found) == MOST_CURES:
                return tuple(found)
    return tuple(found)


def _kv_size(refused: Refused) -> Iterator[Cure]:
    question = refused.question
    if question.wishes.kv_cache_bytes is None:
        return
    if choose(with_wishes(question, kv_cache_bytes=None)).fits:
        yield Cure("leave the size of the KV cache to us", (), "nothing")


def _higher_utilization(refused: Refused) -> Iterator[Cure]:
    """The least share in whole hundredths that holds it and that the cards have free."""
    question, attempt = refused.question, refused.attempt
    estimate, cards = attempt.estimate, attempt.place.cards
    if not cards or question.wishes.available_kv_bytes is not None:
        return
    needed = sum(term.n_bytes for term in estimate.terms) + estimate.needed_kv_bytes
    share = ceil(100 * needed / estimate.total_bytes) / 100
    most = min(MOST_UTILIZATION, free_share(cards, estimate.outside_bytes))
    if not estimate.layout.gpu_memory_utilization < share <= most:
        return
    if choose(with_wishes(question, gpu_memory_utilization=share)).fits:
        flags = ("--gpu-memory-utilization", f"{share:.2f}")
        price = "no room on the cards for other programs, and a smaller margin"
        yield Cure(f"{share:.0%} of the memory of each card", flags, price)


def _lower_utilization(refused: Refused) -> Iterator[Cure]:
    """Where more is wished than is free."""
    question = refused.question
    if question.wishes.gpu_memory_utilization is None or not refused.attempt.place.cards:
        return
    found = choose(with_wishes(question, gpu_memory_utilization=None))
    share = found.estimate.layout.gpu_memory_utilization
    if found.fits and share < question.wishes.gpu_memory_utilization:
        flags = ("--gpu-memory-utilization", f"{share:.3f}")
        yield Cure(f"{share:.1%} of the memory of each card, what is free", flags, "nothing")


def _smaller_batches(refused: Refused) -> Iterator[Cure]:
    question = refused.question
    layout = refused.attempt.estimate.layout
    for tokens, sequences in SMALLER_BATCHES:
        is_less = tokens < layout.max_num_batched_tokens or sequences < layout.max_num_seqs
        if not is_less or sequences < question.requests:
            continue
        tokens = min(tokens, layout.max_num_batched_tokens)
        sequences = min(sequences, layout.max_num_seqs)
        changes = {"max_num_batched_tokens": tokens, "max_num_seqs": sequences}
        if choose(with_wishes(question, **changes)).fits:
            flags = ("--max-num-batched-tokens", str(tokens), "--max-num-seqs", str(sequences))
            change = f"batches of {tokens:,} tokens and {sequences} sequences"
            price = f"at most {sequences} requests run at once, long prompts are read slower"
            yield Cure(change, flags, price)
            return


def _other_spread(refused: Refused) -> Iterator[Cure]:
    """More of the machine's own cards than were wished."""
    question = refused.question
    wishes = question.wishes
    if wishes.tensor_parallel is None and wishes.pipeline_parallel is None:
        return
    if wishes.decode_context_parallel is not None:
        return  # the KV cache's division hangs on the number of ranks
    free = {"tensor_parallel": None, "pipeline_parallel": None}
    found = choose(with_wishes(question, **free))
    if not found.fits:
        return
    parallel, count = found.place.parallel, len(found.place.cards)
    flags = ["--tensor-parallel-size", str(parallel.tensor)]
    flags += ["--pipeline-parallel-size", str(parallel.pipeline)]
    was = len(refused.attempt.place.cards)
    price = f"{count} cards instead of {was}" if count != was else "nothing"
    change = f"tensor parallel {parallel.tensor}, pipeline parallel {parallel.pipeline}"
    yield Cure(change, tuple(flags), price)


def _fp8_keys(refused: Refused) -> Iterator[Cure]:
    question = _with_fp8_keys(refused)
    if question is None:
        return
    found = choose(question)
    if found.fits:
        flags = ("--kv-cache-dtype", "fp8")
        yield Cure("KV cache in fp8", flags, f"{_gain(refused, found)}, slight loss of quality")


def _with_fp8_keys(refused: Refused) -> Question | None:
    """None: they are there already, or cannot be had."""
    question, place = refused.question, refused.attempt.place
    kept = question.geometry.kv_dtype if question.wishes.kv_dtype in (None, "auto") else None
    if "fp8" in (kept or question.wishes.kv_dtype or ""):
        return None
    if not can_hold_fp8_keys(question.geometry, place.cards):
        return None
    return with_wishes(question, kv_dtype="fp8")


def _gain(refused: Refused, found: Attempt) -> str:
    ratio = refused.attempt.estimate.kv_bytes_per_token / max(1, found.estimate.kv_bytes_per_token)
    return f"{ratio:.2g} × the context in the same memory"


def _fewer_requests(refused: Refused) -> Iterator[Cure]:
    question = refused.question
    fewer = min(question.requests - 1, int(refused.attempt.estimate.max_concurrency))
    while fewer >= 1:
        if choose(with_wishes(question, concurrency=fewer)).fits:
            price = f"{fewer} instead of {question.requests} requests of full length at once"
            flags = ("--concurrency", str(fewer))
            yield Cure(f"room for {fewer} at once", flags, f"{price}, the others wait")
            return
        fewer //= 2


def _shorter_context(refused: Refused) -> Iterator[Cure]:
    cure = _shortened(refused.question)
    if cure is not None:
        yield cure


def _both(refused: Refused) -> Iterator[Cure]:
    """fp8 keys and a shorter context: longer than the shorter context alone."""
    question = _with_fp8_keys(refused)
    if question is None:
        return
    cure = _shortened(question)
    if cure is not None:
        flags = ("--kv-cache-dtype", "fp8", *cure.flags)
        change = f"KV cache in fp8, and {cure.change}"
        yield Cure(change, flags, f"slight loss of quality, and {cure.price}")


def _shortened(question: Question) -> Cure | None:
    wished = question.wishes.context_tokens
    if wished is None or question.context_tokens <= LEAST_CONTEXT_TOKENS:
        return None
    found = choose(with_wishes(question, context_tokens=None))
    context = found.estimate.layout.context_tokens
    if not found.fits or context >= question.context_tokens:
        return None
    price = f"{context / question.context_tokens:.0%} of the length that was asked for"
    return Cure(f"a context of {context:,} tokens", ("--max-model-len", str(context)), price)


def _other_formats(refused: Refused) -> Iterator[Cure]:
    """The largest first: it has lost least."""
    question = replace(refused.question, find=None)
    question = with_wishes(question, available_kv_bytes=None)
    parallel = refused.attempt.place.parallel
    plain = weights_per_stage(question.geometry, parallel)[0]
    sized = [(weights_per_stage(each, parallel)[0], name, each) for name, each in refused.variants]
    for n_bytes, name, geometry in sorted(sized, key=lambda item: -item[0]):
        if n_bytes < plain and choose(replace(question, geometry=geometry)).fits:
            price = f"{show_bytes(n_bytes)} of weights on a card instead of {show_bytes(plain)}"
            yield Cure(f"the variant {name}", _variant(name), f"{price}, some loss of quality")


def _variant(name: str) -> tuple[str, ...]:
    """`"qwen3-8b:awq"` as typed."""
    _, colon, variant = name.rpartition(":")
    return ("--variant", variant) if colon else (name,)


def _elsewhere(refused: Refused) -> Iterator[Cure]:
    for find in (more_cards, larger_cards, on_the_processor):
        other = find(refused.question, refused.attempt)
        if other is not None:
            flags = _machine_flags(refused.question, other.attempt)
            yield Cure(other.change, flags, other.price)


def _machine_flags(question: Question, found: Attempt) -> tuple[str, ...]:
    """The cards, and how the model is spread where that was wished otherwise."""
    cards, wishes = found.place.cards, question.wishes
    if not cards:
        return "--device", "cpu"
    name = cards[0].name if cards[0].known is not None else show_bytes(cards[0].total_bytes)
    flags = ["--gpus", f"{len(cards)}x {name}"]
    if wishes.tensor_parallel not in (None, found.place.parallel.tensor):
        flags += ["--tensor-parallel-size", str(found.place.parallel.tensor)]
    if wishes.pipeline_parallel not in (None, found.place.parallel.pipeline):
        flags += ["--pipeline-parallel-size", str(found.place.parallel.pipeline)]
    if (wishes.gpu_memory_utilization or 0) > MOST_UTILIZATION:
        share = found.estimate.layout.gpu_memory_utilization
        flags += ["--gpu-memory-utilization", f"{share:.3f}"]
    return tuple(flags)


_PROPOSALS: tuple[Propose, ...] = (
    _kv_size,
    _lower_utilization,
    _higher_utilization,
    _other_spread,
    _smaller_batches,
    _fp8_keys,
    _fewer_requests,
    _shorter_context,
    _both,
    _other_formats,
    _elsewhere,
)
