"""One layout at one place: every decision made, and weighed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor

from serve.hardware import Gpu, Machine
from serve.plan.estimate import Ask, evaluate, evaluate_cpu
from serve.plan.keys import profile_key
from serve.plan.overhead import outside_bytes
from serve.plan.plan import Estimate, Layout, Wishes
from serve.plan.search import Place
from serve.plan.versions import Rules
from serve.profiles import Profile, ProfileKey
from serve.shape import Geometry

FindProfile = Callable[[ProfileKey], Profile | None]
Batches = tuple[int, int]  # max_num_batched_tokens, max_num_seqs

# Below this nobody can work with a chat model, so we refuse instead of shortening further.
LEAST_CONTEXT_TOKENS = 2048
# What takes less and less room for activations and the sampler, in order; each step is tried only
# where vLLM's own defaults do not go in. Fewer tokens in a step make long prompts slower.
SMALLER_BATCHES: tuple[Batches, ...] = ((2048, 256), (2048, 64), (1024, 32), (512, 8))


@dataclass(frozen=True, slots=True)
class Question:
    """All that an answer depends on. `context_tokens`: what is wanted, within what the model
    allows. `digest`: names the weights for `find`. `may_shrink`: batches that
    nobody asked for may be smaller than vLLM's defaults, if that is what it takes."""

    geometry: Geometry
    machine: Machine
    wishes: Wishes
    rules: Rules
    context_tokens: int
    digest: str = ""
    find: FindProfile | None = None
    may_shrink: bool = True

    @property
    def least_context_tokens(self) -> int:
        """The shortest context that is an answer: the wished one, if one is wished."""
        if self.wishes.context_tokens is not None:
            return self.context_tokens
        return min(LEAST_CONTEXT_TOKENS, self.context_tokens)

    @property
    def requests(self) -> int:
        return self.wishes.concurrency or 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """The model at this place; `profile`: what calibrated the sum. `is_reduced`: with smaller
    batches than vLLM's own."""

    place: Place
    estimate: Estimate
    key: ProfileKey
    requests: int
    profile: Profile | None = None
    is_reduced: bool = False

    @property
    def fits(self) -> bool:
        return self.estimate.fits

    @property
    def spread_bytes(self) -> int:
        """How much more than expected the estimated terms may take together."""
        terms = [term for term in self.estimate.terms if term.basis == "estimated"]
        return sum(term.high_bytes - term.n_bytes for term in terms)

    @property
    def is_calibrated(self) -> bool:
        """Is a term of the sum known from an earlier launch?"""
        return any(term.basis == "measured" for term in self.estimate.terms)


def weigh(
    question: Question, place: Place, context_tokens: int, batches: Batches | None = None
) -> Attempt:
    """The sum with this context; `batches` instead of vLLM's defaults where nobody wished any."""
    layout = layout_of(question, place, context_tokens, batches)
    wishes, cpu = question.wishes, question.machine.cpu
    key = profile_key(question.digest, place.cards[0] if place.cards else cpu, layout)
    profile = question.find(key) if question.find is not None else None
    ask = Ask(question.requests, profile, wishes.available_kv_bytes, wishes.kv_cache_bytes)
    if place.cards:
        estimate = evaluate(question.geometry, place.cards, layout, ask)
    else:
        estimate = evaluate_cpu(question.geometry, cpu, layout, ask)
    return Attempt(place, estimate, key, ask.requests, profile, batches is not None)


def weigh_longest(
    question: Question, place: Place, batches: Batches | None = None
) -> Attempt | None:
    """The sum with the longest context that goes in; None if that is shorter than the least."""
    most = weigh(question, place, question.context_tokens, batches)
    if most.fits:
        return most
    low, high = question.least_context_tokens, most.estimate.longest_context_tokens
    if high < low or most.estimate.needed_by_free_bytes:
        return None
    # The estimate's own answer is right but where the sum itself depends on the context.
    block = most.estimate.block_tokens
    wanted = (min(high, question.context_tokens) - _margin_tokens(most)) // block * block
    wanted = max(low, wanted)
    best = weigh(question, place, wanted, batches)
    return best if best.fits else _bisect(question, place, batches, (low, high))


def _margin_tokens(attempt: Attempt) -> int:
    """How much shorter a context is that fits even if every estimate is at its upper end.

    An engine that has less memory than its context needs ends after minutes of loading, so the
    first start keeps a distance; what it measures lets the next one go to the limit. A KV cache on
    a processor is told to the engine, so there is nothing to keep away from.
    """
    estimate = attempt.estimate
    if not attempt.place.cards:
        return 0
    return attempt.spread_bytes // max(1, estimate.kv_bytes_per_token) // attempt.requests


def _bisect(
    question: Question, place: Place, batches: Batches | None, between: tuple[int, int]
) -> Attempt | None:
    low, high = between
    best = weigh(question, place, low, batches)
    if not best.fits:
        return None
    block = best.estimate.block_tokens
    while high - low > block:
        middle = (low + high) // 2 // block * block
        if middle <= low:
            break
        attempt = weigh(question, place, middle, batches)
        low, high, best = (middle, high, attempt) if attempt.fits else (low, middle, best)
    return best


def layout_of(
    question: Question, place: Place, context_tokens: int, batches: Batches | None = None
) -> Layout:
    """Every decision at this place, the wished ones and vLLM's own."""
    wishes, geometry, rules = question.wishes, question.geometry, question.rules
    kv_dtype = wishes.kv_dtype or "auto"
    tokens, sequences = _batches(question, place, context_tokens, batches)
    has_amx = "amx_tile" in question.machine.cpu.flags
    block = wishes.block_tokens or rules.block_tokens(geometry, place.device, kv_dtype, has_amx)
    return Layout(
        parallel=place.parallel,
        context_tokens=context_tokens,
        max_num_batched_tokens=tokens,
        max_num_seqs=sequences,
        kv_dtype=kv_dtype,
        block_tokens=block,
        gpu_memory_utilization=_utilization(question, place),
        version=wishes.engine_version or ".".join(map(str, rules.version)),
        is_eager=wishes.is_eager,
    )


def default_batches(question: Question, place: Place) -> Batches:
    """What vLLM's server takes by itself at this place."""
    parallel = place.parallel
    world = parallel.tensor * parallel.pipeline
    if not place.cards:
        return question.rules.batch_limits(question.machine.cpu.total_bytes, "", "cpu", world)
    first = place.cards[0]
    return question.rules.batch_limits(first.total_bytes, first.name, "cuda", world)


def _batches(
    question: Question, place: Place, context_tokens: int, smaller: Batches | None
) -> Batches:
    """As vLLM settles them (engine/arg_utils.py, _set_default_max_num_seqs_and_batched_tokens):
    the wished ones, else the defaults, no more tokens than all sequences have and no more
    sequences than tokens. A wished concurrency raises the sequences."""
    wishes = question.wishes
    tokens, sequences = default_batches(question, place)
    if smaller is not None:
        tokens, sequences = min(tokens, smaller[0]), min(sequences, smaller[1])
    sequences = wishes.max_num_seqs or max(sequences, question.requests)
    if wishes.max_num_batched_tokens is not None:
        tokens = wishes.max_num_batched_tokens
    else:
        tokens = min(max(tokens, sequences), sequences * context_tokens)
    if wishes.max_num_seqs is None:
        sequences = min(sequences, tokens)
    return tokens, sequences


def _utilization(question: Question, place: Place) -> float:
    """The share of its total memory that each card gives: the wished one, else vLLM's default or
    what is free, rounded down.

    vLLM refuses to start when utilization × total is more than what is free after its CUDA context
    (and NCCL) are there; the same share holds for all ranks, so the fullest card decides.
    """
    wished = question.wishes.gpu_memory_utilization
    if wished is not None or not place.cards:
        return wished or 0.0
    default = question.rules.default_utilization
    if question.wishes.available_kv_bytes is not None:
        return default
    return max(0.0, min(default, free_share(place.cards, outside_bytes(place.parallel))))


def free_share(cards: tuple[Gpu, ...], outside: int) -> float:
    """The largest utilization that every one of the cards can give now, in whole thousandths."""
    least = min((card.free_bytes - outside) / card.total_bytes for card in cards)
    return floor(least * 1000) / 1000


def with_wishes(question: Question, **changes: object) -> Question:
    """The same question with other wishes."""
    wishes: Wishes = replace(question.wishes, **changes)  # type: ignore[arg-type]
    return replace(question, wishes=wishes)
