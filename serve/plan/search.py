"""Where an engine could run: every set of cards worth weighing, the best first."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from serve.geometry import is_divisible
from serve.hardware import Gpu, Machine
from serve.plan.islands import Cards, freest, islands, sets_of
from serve.plan.plan import Wishes
from serve.plan.traits import has_experts
from serve.plan.versions import rules
from serve.shape import Geometry, Parallel

# Beyond one box cards come in powers of two.
_MOST_UNEVEN = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Cards, in the order of ranks, and how the engine is spread over them. No cards: the
    processor. `is_across`: tensor ranks talk over PCIe although there is NVLink elsewhere."""

    cards: tuple[Gpu, ...]
    parallel: Parallel
    is_across: bool = False

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self.cards else "cpu"


@dataclass(frozen=True, slots=True)
class _Kind:
    cards: Cards
    islands: tuple[Cards, ...]


def places(geometry: Geometry, machine: Machine, wishes: Wishes) -> Iterator[Place]:
    """All places on the machine's cards that the model can be cut for, fewest cards first.

    For as many cards: tensor parallel within an island of NVLink before pipelines of such islands
    (every token passes all stages of a pipeline in turn; tensor ranks share the work on it), and
    tensor parallel across islands last. Cards of one kind come before a mixture.
    """
    alone = _kinds(machine.gpus)
    whole = _kinds(tuple(gpu for gpu in machine.gpus if not gpu.is_slice))
    linked: list[_Kind] = []
    for size in _sizes(_largest(machine.gpus), wishes):
        if size * (wishes.data_parallel or 1) == 1:
            yield from _of_size(geometry, wishes, size, [_Kind(kind, (kind,)) for kind in alone])
            continue
        linked = linked or [_Kind(kind, islands(kind, machine)) for kind in whole]
        yield from _of_size(geometry, wishes, size, linked)


def alike(machine: Machine, place: Place) -> list[tuple[Gpu, ...]]:
    """Cards for engines like this one on the whole machine, none on two of them, the freest first;
    each engine on cards of one kind."""
    parallel = place.parallel
    count = parallel.pipeline * parallel.data
    is_alone = parallel.tensor * count == 1
    found: list[tuple[Gpu, ...]] = []
    for kind in _by_kind(tuple(gpu for gpu in machine.gpus if is_alone or not gpu.is_slice)):
        groups = (kind,) if is_alone or place.is_across else islands(kind, machine)
        sets = sets_of(groups, parallel.tensor)
        for start in range(0, len(sets) - count + 1, count):
            found.append(tuple(card for cards in sets[start : start + count] for card in cards))
    return found


def on_processor(wishes: Wishes) -> Place:
    """The one place on a CPU: one rank, unless more are wished."""
    return Place((), _parallel(wishes, wishes.tensor_parallel or 1, wishes.pipeline_parallel or 1))


def _largest(gpus: Cards) -> int:
    """A CUDA process sees no more than one MIG slice, so no engine spans two."""
    return max(sum(not gpu.is_slice for gpu in gpus), min(1, len(gpus)))


def _sizes(largest: int, wishes: Wishes) -> Iterator[int]:
    """Tensor × pipeline ranks to try: powers of two first, as cards are sold and linked; the rest
    are for models that none of these holds."""
    largest //= wishes.data_parallel or 1
    if wishes.tensor_parallel is not None and wishes.pipeline_parallel is not None:
        yield wishes.tensor_parallel * wishes.pipeline_parallel
        return
    sizes = range(1, largest + 1)
    yield from (size for size in sizes if size & (size - 1) == 0)
    yield from (size for size in sizes if size & (size - 1) and size <= _MOST_UNEVEN)


def _of_size(geometry: Geometry, wishes: Wishes, size: int, kinds: list[_Kind]) -> Iterator[Place]:
    last: list[Place] = []
    for tensor in range(size, 0, -1):
        if size % tensor or not _is_wished(wishes, tensor, size // tensor, geometry):
            continue
        parallel = _cut(geometry, wishes, tensor, size // tensor)
        if parallel is None:
            continue
        for place in _on_kinds(kinds, parallel):
            if place.is_across:
                last.append(place)
            else:
                yield place
    yield from last


def _is_wished(wishes: Wishes, tensor: int, pipeline: int, geometry: Geometry) -> bool:
    return (
        wishes.tensor_parallel in (None, tensor)
        and wishes.pipeline_parallel in (None, pipeline)
        and pipeline <= len(geometry.layers)
    )


def _cut(geometry: Geometry, wishes: Wishes, tensor: int, pipeline: int) -> Parallel | None:
    """With whole experts per rank where they cannot be sliced; None: not at all."""
    parallel, version = _parallel(wishes, tensor, pipeline), rules(wishes.engine_version).version
    if is_divisible(geometry, parallel, version) is None:
        return parallel
    whole = replace(parallel, is_expert=True)
    may = wishes.is_expert_parallel is None and has_experts(geometry)
    return whole if may and is_divisible(geometry, whole, version) is None else None


def _parallel(wishes: Wishes, tensor: int, pipeline: int) -> Parallel:
    return Parallel(
        tensor=tensor,
        pipeline=pipeline,
        data=wishes.data_parallel or 1,
        decode_context=wishes.decode_context_parallel or 1,
        is_expert=wishes.is_expert_parallel or False,
    )


def _on_kinds(kinds: list[_Kind], parallel: Parallel) -> Iterator[Place]:
    seen: set[tuple[str, ...]] = set()
    for kind in kinds:
        place = _on(kind, parallel)
        if place is None:
            continue
        names = tuple(card.uuid for card in place.cards)
        if names not in seen:
            seen.add(names)
            yield place


def _kinds(cards: Cards) -> list[Cards]:
    """Cards of each kind, the kind with most free memory on a card first, then all together."""
    found = _by_kind(cards)
    return found if len(found) == 1 else [*found, cards]


def _by_kind(cards: Cards) -> list[Cards]:
    kinds: dict[tuple[str, int], list[Gpu]] = {}
    for card in sorted(cards, key=lambda card: -card.free_bytes):
        kinds.setdefault((card.name, card.total_bytes), []).append(card)
    return [tuple(kind) for kind in kinds.values()]


def _on(kind: _Kind, parallel: Parallel) -> Place | None:
    tensor, count = parallel.tensor, parallel.pipeline * parallel.data
    near = freest(kind.islands, tensor, count)
    if near is not None:
        return Place(near, parallel)
    across = freest([kind.cards], tensor, count)
    return Place(across, parallel, is_across=True) if across is not None else None
