"""Which cards belong together: NVLink makes islands, and a tensor rank group stays on one."""

from collections.abc import Iterable

from serve.hardware import Gpu, Machine

Cards = tuple[Gpu, ...]


def islands(cards: Cards, machine: Machine) -> tuple[Cards, ...]:
    """The cards, grouped by NVLink. Where no two are linked they are one island: all ways between
    them are alike, over PCIe."""
    here = {card.index for card in cards}
    fast = [
        (link.first, link.second)
        for link in machine.links
        if link.kind == "NVLINK" and link.first in here and link.second in here
    ]
    if not fast:
        return (cards,)
    island = {index: {index} for index in here}
    for first, second in fast:
        if island[first] is not island[second]:
            island[first] |= island[second]
            island.update(dict.fromkeys(island[second], island[first]))
    groups: dict[int, list[Gpu]] = {}
    for card in cards:
        groups.setdefault(id(island[card.index]), []).append(card)
    return tuple(tuple(group) for group in groups.values())


def sets_of(groups: Iterable[Cards], size: int) -> list[Cards]:
    """As many sets of `size` cards as there are, each within one of the groups, the freest first;
    cards of a set in NVML's order."""
    sets: list[Cards] = []
    for group in groups:
        ordered = sorted(group, key=lambda card: -card.free_bytes)
        starts = range(0, len(ordered) - size + 1, size)
        sets.extend(tuple(ordered[start : start + size]) for start in starts)
    sets.sort(key=lambda cards: -cards[-1].free_bytes)
    return [tuple(sorted(cards, key=lambda card: card.index)) for cards in sets]


def freest(groups: Iterable[Cards], size: int, count: int) -> Cards | None:
    """`count` sets of `size` cards, each within one of the groups, those with most free memory.

    Side by side as ranks are counted, in NVML's order. None: there are too few.
    """
    sets = sets_of(groups, size)[:count]
    if len(sets) < count:
        return None
    sets.sort(key=lambda cards: cards[0].index)
    return tuple(card for cards in sets for card in cards)
