"""As many different mutations of a model as somebody asks for, by a seed."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle

from tests.campaigns import forgery, malice, tampering
from tests.campaigns.subject import Files, digest
from tests.campaigns.tampering import Tree


@dataclass(frozen=True, slots=True)
class Mutation:
    """One changed model; `gate` must refuse it."""

    number: int
    family: str
    gate: str
    files: Tree
    digest: str

    @property
    def name(self) -> str:
        return f"{self.number} {self.family} at {self.gate}"


def mutations(
    files: Files, artefacts: Mapping[str, bytes], count: int, seed: int
) -> Iterator[Mutation]:
    """`count` mutations, all different by content, each family in turn, and for each family its
    gates in turn. `artefacts`: what vouches for the model (`forgery.py`); those that are
    given are forged too."""
    dice = random.Random(seed)
    seen, number = {digest(files)}, 0
    seen |= {digest({name: content}) for name, content in artefacts.items()}
    turns = [
        (family, cycle(gates), material)
        for families, material in (
            (tampering.FAMILIES, files), (malice.FAMILIES, files), (forgery.FAMILIES, artefacts),
        )
        for family, gates in families.items()
    ]  # fmt: skip
    while number < count:
        for family, gates, material in turns:
            changed = family(dice, material)
            mark = digest(changed)
            if mark not in seen and number < count:
                seen.add(mark)
                yield Mutation(number, family.__name__, next(gates), changed, mark)
                number += 1
