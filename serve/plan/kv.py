"""The KV cache of one device, in blocks, exactly as vLLM counts and logs it.

Sources: v1/core/kv_cache_utils.py (0.33: kv_cache_planning.py) and v1/kv_cache_interface.py.
Integers throughout; the concurrency is the same float division that vLLM makes.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from serve.geometry import layers_per_stage
from serve.plan.groups import Group, form_groups
from serve.plan.pages import (
    KERNEL_TOKENS,
    Format,
    Page,
    item_bytes,
    model_bytes,
    pages_of,
)
from serve.plan.pages import raised_block as raise_block
from serve.plan.plan import Layout
from serve.plan.versions import Rules, rules
from serve.shape import Attention, Geometry, Heads, Latent, Linear, Parallel

Device = Literal["cpu", "cuda"]
Caches = tuple[tuple[int, Page], ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """The KV cache of one device of one pipeline stage.

    `block_tokens`: tokens in the smallest block, over all context-parallel ranks one block each.
    `bytes_per_block`: what one block number takes on this device; `checked_bytes_per_block`: what
    the start's check counts for it. `bytes_per_token`: what a request grows by here with each
    token, beyond all windows. `whole`: block sizes of the groups that keep every token; `windows`:
    (block size, most tokens held) of those that slide; `fixed_blocks`: of states. `spare_blocks`:
    1 where the check leaves out the null block.
    """

    block_tokens: int
    bytes_per_block: int
    bytes_per_token: int
    checked_bytes_per_block: int
    whole: tuple[int, ...]
    windows: tuple[tuple[int, int], ...]
    fixed_blocks: int
    shards: int
    spare_blocks: int
    groups: int
    are_tokens_by_concurrency: bool

    def blocks_for(self, context_tokens: int) -> int:
        """Blocks of one request of this length, over all groups."""
        count = self.fixed_blocks
        share = -(-context_tokens // self.shards)
        for tokens in self.whole:
            count += -(-share // tokens)
        for tokens, most in self.windows:
            # One more: the window need not begin where a block does.
            count += -(-min(most, context_tokens) // tokens) + 1
        return count

    def blocks_in(self, n_bytes: int) -> int:
        """Whole blocks in so many bytes."""
        return max(0, n_bytes) // self.bytes_per_block

    def bytes_for(self, context_tokens: int, requests: int = 1) -> int:
        """What so many requests of this length need at once.

        For one it is the check that vLLM makes at the start; for more, the null block that every
        pool keeps for itself is counted whatever the version checks. (0.14 to 0.18 count the first
        kind of a hybrid's layers only; we ask for what a request really takes.)
        """
        spare = self.spare_blocks if requests == 1 else 1
        return (requests * self.blocks_for(context_tokens) + spare) * self.checked_bytes_per_block

    def tokens_in(self, n_bytes: int, context_tokens: int) -> int:
        """The figure that vLLM logs as "KV cache size"."""
        if self.are_tokens_by_concurrency:
            return int(self.concurrency_in(n_bytes, context_tokens) * context_tokens)
        return self.blocks_in(n_bytes) // self.groups * self.block_tokens * self.shards

    def concurrency_in(self, n_bytes: int, context_tokens: int) -> float:
        """Requests of this length that fit at once, as vLLM logs it."""
        return self.blocks_in(n_bytes) / self.blocks_for(context_tokens)

    def longest_context(self, n_bytes: int, at_most: int) -> int:
        """The longest request that passes vLLM's check, 0 if none does; at most `at_most`."""
        room = max(0, n_bytes) // self.checked_bytes_per_block - self.spare_blocks
        if at_most < 1 or self.blocks_for(1) > room:
            return 0
        if self.blocks_for(at_most) <= room:
            return at_most
        fits, fails = 1, at_most
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if self.blocks_for(middle) <= room:
                fits = middle
            else:
                fails = middle
        return fits


def pool(geometry: Geometry, stage: int, layout: Layout, device: Device) -> Pool:
    """The KV cache of each device of pipeline stage `stage` (from 0).

    Raises SettingsError for a KV format that is not known here.
    """
    return _pool(
        geometry,
        stage,
        layout.parallel,
        (layout.kv_dtype, layout.block_tokens, layout.max_num_batched_tokens),
        (layout.version, device),
    )


@lru_cache(maxsize=4096)
def _pool(
    geometry: Geometry,
    stage: int,
    parallel: Parallel,
    sizes: tuple[str, int, int],
    engine: tuple[str, Device],
) -> Pool:
    kv_dtype, block_tokens, batched_tokens = sizes
    version, device = engine
    rule = rules(version)
    groups, caches = _grouped(geometry, parallel.tensor, kv_dtype, block_tokens, engine)
    here = _layers_of(geometry, parallel, stage)
    bytes_per_block = _bytes_per_block(groups, caches, here)
    everywhere = range(len(geometry.layers))
    held = rule.batches_in_flight(geometry, device, parallel.pipeline) * batched_tokens
    return Pool(
        block_tokens=min(group.page.block_tokens for group in groups),
        bytes_per_block=bytes_per_block,
        bytes_per_token=_growth(caches, here) // parallel.decode_context,
        checked_bytes_per_block=_bytes_per_block(groups, caches, everywhere)
        if rule.is_need_of_whole_model
        else bytes_per_block,
        whole=tuple(each.page.block_tokens for each in groups if each.page.kind == "full"),
        windows=tuple(
            (each.page.block_tokens, each.page.window - 1 + held)
            for each in groups
            if each.page.kind == "sliding"
        ),
        fixed_blocks=sum(each.page.states for each in groups),
        shards=parallel.decode_context,
        spare_blocks=1 if rule.is_null_block_reserved else 0,
        groups=len(groups),
        are_tokens_by_concurrency=rule.are_tokens_by_concurrency,
    )


@lru_cache(maxsize=1024)
def _grouped(
    geometry: Geometry, tensor: int, kv_dtype: str, block_tokens: int, engine: tuple[str, Device]
) -> tuple[tuple[Group, ...], Caches]:
    """Every cache of the model as one rank holds it, in groups. Sweeps over batches, contexts and
    stages find it made."""
    version, device = engine
    rule = rules(version)
    attentions = tuple(_as_kept(layer.attention, rule) for layer in geometry.layers)
    form = Format(
        tensor,
        block_tokens,
        item_bytes(geometry, kv_dtype),
        model_bytes(geometry),
        2 if rule.are_states_kept_for_prefixes else 1,
        any(isinstance(each, Latent) and each.index for each in attentions),
        4 if device == "cpu" else model_bytes(geometry),
    )
    if any(isinstance(each, Linear) for each in attentions):
        raised = raise_block(attentions, form, KERNEL_TOKENS[device])
        form = replace(form, block_tokens=raised)
    caches = [
        (layer, page) for layer, each in enumerate(attentions) for page in pages_of(each, form)
    ]
    return form_groups(caches, rule.group_slack)


def _as_kept(attention: Attention, rule: Rules) -> Attention:
    if isinstance(attention, Heads) and attention.window and not rule.are_windows_recycled:
        return replace(attention, window=None)
    return attention


def _layers_of(geometry: Geometry, parallel: Parallel, stage: int) -> range:
    counts = [len(layers) for layers in layers_per_stage(geometry, parallel)]
    start = sum(counts[:stage])
    return range(start, start + counts[stage])


def _bytes_per_block(groups: tuple[Group, ...], caches: Caches, layers: range) -> int:
    """The largest group's pages: all groups draw their blocks from one pool."""
    if len(groups) == 1:
        return sum(page.n_bytes for layer, page in caches if layer in layers)
    return max(
        group.page.n_bytes * sum(layer in layers for layer in group.layers) for group in groups
    )


def _growth(caches: Caches, layers: range) -> int:
    return sum(
        page.n_bytes // page.block_tokens
        for layer, page in caches
        if layer in layers and page.kind == "full"
    )
