"""Layers with like caches share block tables: how vLLM forms the groups.

Source: v1/core/kv_cache_utils.py, get_kv_cache_groups (0.33: v1/core/kv_cache_planning.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from serve.plan.pages import Page


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that one block table serves; `page` stands for each of them in the count of a
    request's blocks. `layers`: indices into the model's layers."""

    page: Page
    layers: tuple[int, ...]


def form_groups(
    caches: Sequence[tuple[int, Page]], slack: float
) -> tuple[tuple[Group, ...], tuple[tuple[int, Page], ...]]:
    """The groups of a whole model, and its caches with their pages made equal where they must be.

    `caches`: (layer, page). `slack`: see `Rules.group_slack`. One group holds all when a request
    grows alike in all layers, whatever the pages' sizes.
    """
    if _grow_alike([page for _, page in caches]):
        layers = tuple(layer for layer, _ in caches)
        return (Group(caches[0][1], layers),), tuple(caches)
    largest = max(page.n_bytes for _, page in caches)
    equal = tuple((layer, _enlarged(page, largest)) for layer, page in caches)
    return _split(equal, slack), equal


def _grow_alike(pages: list[Page]) -> bool:
    first = pages[0]
    return all(
        page.kind == first.kind
        and page.window == first.window
        and page.block_tokens == first.block_tokens
        and (page.kind != "state" or page.n_bytes == first.n_bytes)
        for page in pages
    )


def _enlarged(page: Page, n_bytes: int) -> Page:
    """A page of this size: a state or what does not divide it is padded, else it gets more tokens
    (unify_kv_cache_spec_page_size)."""
    if page.kind == "state" or n_bytes % page.n_bytes:
        return replace(page, n_bytes=n_bytes)
    return replace(page, n_bytes=n_bytes, block_tokens=page.block_tokens * n_bytes // page.n_bytes)


def _split(caches: tuple[tuple[int, Page], ...], slack: float) -> tuple[Group, ...]:
    """Groups of equal size: as many layers as the rarest kind has, or as the commonest if it has
    hardly more (_get_kv_cache_groups_uniform_page_size)."""
    kinds: dict[Page, list[int]] = {}
    for layer, page in caches:
        kinds.setdefault(page, []).append(layer)
    size = min(len(layers) for layers in kinds.values())
    most = max(len(layers) for layers in kinds.values())
    if most < size * slack:
        size = most
    groups = []
    for page, layers in kinds.items():
        count = -(-len(layers) // size)
        # Every count-th layer, so that the stages of a pipeline get alike of each group.
        groups += [Group(page, tuple(layers[start::count])) for start in range(count)]
    return tuple(groups)
