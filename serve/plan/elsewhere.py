"""The same model on another machine: more of the same cards, larger ones, or the processor."""

from dataclasses import dataclass, replace

from serve.geometry import weights_per_stage
from serve.hardware import Gpu, Machine, known_gpus
from serve.plan.attempt import Attempt, Question, layout_of, with_wishes
from serve.plan.capability import problem
from serve.plan.choice import choose
from serve.plan.extent import is_beyond
from serve.plan.kv import pool
from serve.plan.search import Place
from serve.shape import Parallel
from serve.units import show_bytes

# Cards of one machine; beyond it is a cluster.
COUNTS = (1, 2, 4, 8)
# A card counts as larger from this ratio of memory on; below it is the same size by another name.
LARGER = 1.05
# Above this share nothing is left for the CUDA context, and for what the engine allocates after it
# has measured.
MOST_UTILIZATION = 0.97
_UNSPREAD = {"tensor_parallel": None, "pipeline_parallel": None}


@dataclass(frozen=True, slots=True)
class Other:
    """Another place that holds the model: what it is, what it costs in words, the sum there."""

    change: str
    price: str
    attempt: Attempt


def more_cards(question: Question, attempt: Attempt) -> Other | None:
    """The fewest cards of the same kind, all free, that hold it."""
    cards = attempt.place.cards
    if not cards or cards[0].is_slice or not _may_spread(question):
        return None
    has = sum(not gpu.is_slice for gpu in question.machine.gpus)
    for count in COUNTS:
        found = _on(question, cards[0], count) if count > has else None
        if found is not None:
            price = f"{count - has} more {_cards(count - has)}"
            return Other(_several(cards[0], count), price, found)
    return None


def larger_cards(question: Question, attempt: Attempt) -> Other | None:
    """Cards of the kind with the least memory that holds it: as many as now, or if none does, the
    fewest."""
    cards = attempt.place.cards
    if not cards and question.wishes.device == "cpu":
        return None
    counts = [len(cards)] if cards else []
    if _may_spread(question):
        counts += [count for count in COUNTS if count > len(cards)]
    for count in counts:
        for card in _larger(question, cards):
            found = _on(question, card, count)
            if found is not None:
                used, other = len(found.place.cards), "other " if cards else ""
                price = f"{used} {other}{_cards(used)} of {show_bytes(card.total_bytes)}"
                return Other(_several(card, used), price, found)
    return None


def on_the_processor(question: Question, attempt: Attempt) -> Other | None:
    """The machine's own processor, where its memory is enough."""
    machine, wishes = question.machine, question.wishes
    is_there = not machine.is_imagined and machine.cpu.nodes
    if not attempt.place.cards or not is_there or wishes.available_kv_bytes is not None:
        return None
    if (wishes.tensor_parallel or 1) * (wishes.pipeline_parallel or 1) > 1:
        return None
    changed = with_wishes(question, device="cpu", gpu_memory_utilization=None)
    found = choose(replace(changed, find=None))
    return Other("the processor", "far slower: by tens of times", found) if found.fits else None


def _larger(question: Question, cards: tuple[Gpu, ...]) -> list[Gpu]:
    """A card of every kind that has more memory and can run the model, the smallest first."""
    least = LARGER * min((card.total_bytes for card in cards), default=0)
    is_unified = bool(cards and cards[0].known and cards[0].known.is_unified)
    kinds = sorted(known_gpus(), key=lambda kind: kind.memory_bytes)
    found = [
        Gpu(
            index=0,
            uuid="imagined",
            name=kind.name,
            total_bytes=kind.memory_bytes,
            free_bytes=kind.memory_bytes,
            compute_capability=kind.compute_capability,
            known=kind,
        )
        for kind in kinds
        if kind.memory_bytes > least and kind.is_unified == is_unified
    ]
    return [card for card in found if problem(question.geometry, card, question.wishes) is None]


def _may_spread(question: Question) -> bool:
    """More ranks than now? Not where the division of the KV cache hangs on their number."""
    wishes = question.wishes
    return (wishes.decode_context_parallel or 1) * (wishes.data_parallel or 1) == 1


def _on(question: Question, card: Gpu, count: int) -> Attempt | None:
    """The model on so many free cards of this kind, linked alike; None: it does not fit."""
    total = card.total_bytes
    if is_beyond(question.geometry, replace(question.wishes, available_kv_bytes=None)):
        return None  # only an engine that runs proves such a length
    if _least_bytes(question) > count * total:
        return None  # needs no look at every way to cut it
    cards = tuple(
        replace(
            card, index=n, uuid=f"imagined-{n}", free_bytes=total, processes=(), reserved_bytes=0
        )
        for n in range(count)
    )
    machine = Machine(question.machine.cpu, cards, is_imagined=True)
    changes: dict[str, object] = dict(_UNSPREAD) if _may_spread(question) else {}
    if (question.wishes.gpu_memory_utilization or 0) > MOST_UTILIZATION:
        changes["gpu_memory_utilization"] = None
    # What is known to be left is known of the cards that are there.
    changed = with_wishes(question, device="cuda", available_kv_bytes=None, **changes)
    found = choose(replace(changed, machine=machine, find=None))
    return found if found.fits else None


def _least_bytes(question: Question) -> int:
    """Weights and KV cache of the wish, undivided: no way to cut them takes less in all."""
    whole = Place((), Parallel())
    layout = layout_of(question, whole, question.least_context_tokens)
    cache = pool(question.geometry, 0, layout, "cuda")
    needed = cache.bytes_for(layout.context_tokens, question.requests)
    return weights_per_stage(question.geometry, whole.parallel)[0] + needed


def _several(card: Gpu, count: int) -> str:
    if card.known is not None:
        return f"{count} × {card.name}"
    return f"{count} {_cards(count)} of {show_bytes(card.total_bytes)}"


def _cards(count: int) -> str:
    return "card" if count == 1 else "cards"
