"""What a leftover is, and which weights are one: values, and the decision about seals (pure)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serve.lock import Lock
from serve.store.manifest import Manifest

What = Literal[
    "superseded", "quarantined", "unused", "removal", "partial", "arrival", "aside", "unsealed",
    "unnamed", "view",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that nobody needs; `name`: of the model, or of the repository.

    `freed_bytes`: what its removal frees, after those before it in the list. `at`: Unix seconds,
    since when it lies there as it is; of weights, when they were sealed or last used. `is_busy`: it
    has to wait until no pull and no import is at work.
    """

    what: What
    name: str
    path: Path
    freed_bytes: int
    at: float
    revision: str = ""
    is_busy: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look: the store's home, the Hub client's, and what is locked (None: nothing)."""

    home: Path
    hub_home: Path
    lock: Lock | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """`unused_s`: weights that were not loaded for so long go too; None: none for that reason.
    `kept`: names of models of which nothing goes."""

    unused_s: float | None = None
    kept: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Look:
    """What is to be known of a seal beside what it says: whether all its files are there, and for
    how long it was not used."""

    is_whole: Callable[[Manifest], bool]
    idle_s: Callable[[Manifest], float]


def superseded(
    held: tuple[Manifest, ...], lock: Lock | None, wish: Wish, look: Look
) -> Iterator[tuple[Manifest, What]]:
    """Seals that may go, and why: not locked, not kept, and damaged, older than one that is good
    from the same source, or not used for too long."""
    locked = {(model.name, model.revision) for model in lock.models} if lock else set()
    newest: dict[tuple[str, str, str], Manifest] = {}
    for one in sorted(held, key=lambda seal: seal.sealed_at):
        if one.damage is None and look.is_whole(one):
            newest[one.name, one.kind, one.source] = one
    for one in held:
        if (one.name, one.revision) in locked or one.name in wish.kept or one.kind == "dir":
            continue
        best = newest.get((one.name, one.kind, one.source), one)
        if one.damage is not None:
            yield one, "quarantined"
        elif best is not one and best.sealed_at >= one.sealed_at:
            yield one, "superseded"
        elif wish.unused_s is not None and look.idle_s(one) > wish.unused_s:
            yield one, "unused"
