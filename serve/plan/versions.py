"""What differs between versions of vLLM, as far as memory depends on it.

One table says since when each rule holds. Sources: the published wheels 0.8.5 to 0.33
(config/cache.py, envs.py, engine/arg_utils.py, v1/core/kv_cache_utils.py, v1/kv_cache_interface.py,
config/vllm.py); what is older is planned by the rules of 0.8 and V0's, approximately.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from serve.errors import SettingsError
from serve.shape import Experts, Geometry, Latent, Linear

GIB = 2**30

OLDEST = (0, 6)
SHIPPED = (0, 32)
NEWEST = (0, 33)

# Rule → the first version that it holds in.
_SINCE = {
    "are_windows_recycled": (0, 9),
    "is_a100_small": (0, 9),
    "is_need_of_whole_model": (0, 14),
    "are_states_kept_for_prefixes": (0, 26),
    "are_graphs_subtracted": (0, 20),
    "are_tokens_by_concurrency": (0, 20),
    "are_batches_in_flight": (0, 26),
    "has_large_tier": (0, 28),
    "is_cpu_latent_small": (0, 28),
    "is_latent_on_amx": (0, 29),
    "is_null_block_reserved": (0, 29),
    "is_pipeline_overlapped": (0, 29),
    "is_gb10_small": (0, 33),
}
# Rule → the first version that it no longer holds in.
_UNTIL = {"are_prompts_whole": (0, 8), "is_need_of_whole_model": (0, 17)}
# Since when → the default of gpu_memory_utilization.
_UTILIZATION = (((0, 20), 0.92), (OLDEST, 0.9))
# Since when → how much larger than the smallest the largest kind of layers may be to be padded to.
_SLACK = (((0, 18), 1.5), ((0, 12), 1.25), (OLDEST, 1.0))
# Since when → the block of dense MLA on CUDA: FLASH_ATTN_MLA, before it FLASHMLA.
_LATENT_BLOCK = (((0, 12), 16), (OLDEST, 64))

_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?:\.\d+)*(?:[-.+]?[a-z][a-z0-9.+-]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one version, `version` as (major, minor).

    `default_utilization`: share of a card's total. `are_graphs_subtracted`: CUDA graphs are charged
    to the budget before the KV cache. `are_tokens_by_concurrency`: the logged size is
    int(concurrency × context), else blocks / groups × block size. `is_null_block_reserved`: the
    start checks against all blocks but one. `are_windows_recycled`: sliding layers stop growing,
    else they are kept whole. `are_batches_in_flight`: they keep the tokens of every batch in
    flight, else of one; `is_pipeline_overlapped`: one more than a pipeline has stages.
    `are_states_kept_for_prefixes`: linear attention keeps two states per request, else one.
    `group_slack`: kinds of layers of unequal number share groups of the larger number below this.
    `is_cpu_latent_small`: a CPU's reference kernel for MLA takes blocks of 16; `is_latent_on_amx`:
    it has a kernel for AMX too. `is_need_of_whole_model`: under pipeline parallelism the check
    counts all layers on each stage (a defect of its time). `are_prompts_whole`: V0, which profiles
    a prompt of full length.
    """

    version: tuple[int, int]
    default_utilization: float
    group_slack: float
    latent_block_tokens: int
    are_graphs_subtracted: bool
    are_tokens_by_concurrency: bool
    is_null_block_reserved: bool
    are_batches_in_flight: bool
    is_pipeline_overlapped: bool
    are_windows_recycled: bool
    are_states_kept_for_prefixes: bool
    is_need_of_whole_model: bool
    are_prompts_whole: bool
    has_large_tier: bool
    is_a100_small: bool
    is_cpu_latent_small: bool
    is_latent_on_amx: bool
    is_gb10_small: bool

    def batch_limits(
        self, total_bytes: int, name: str, device: Literal["cpu", "cuda"], world: int
    ) -> tuple[int, int]:
        """(max_num_batched_tokens, max_num_seqs) that vLLM's server takes by default.

        `total_bytes`, `name`: of the card; `world`: ranks of one engine, which scale a CPU's.
        Source: engine/arg_utils.py, get_batch_defaults.
        """
        if device == "cpu":
            return 2048 * world, 128 * world
        if total_bytes >= 160 * GIB and self.has_large_tier:
            return 16384, 1024
        if total_bytes >= 70 * GIB and not self._is_small(name.lower()):
            return 8192, 1024
        return 2048, 256

    def block_tokens(
        self,
        geometry: Geometry,
        device: Literal["cpu", "cuda"],
        kv_dtype: str,
        has_amx: bool = False,
    ) -> int:
        """Tokens per block where nobody asks for a size, before the KV arithmetic raises it.

        That of the backend that is chosen first: on a CPU 128, for MLA without AMX (`has_amx`) 16;
        on CUDA 16, for sparse MLA 64 (platforms/cpu.py, cuda.py).
        """
        latents = [
            layer.attention for layer in geometry.layers if isinstance(layer.attention, Latent)
        ]
        if device == "cpu":
            is_quick = has_amx and self.is_latent_on_amx
            return 16 if latents and self.is_cpu_latent_small and not is_quick else 128
        if any(latent.index for latent in latents):
            return 64
        return self.latent_block_tokens if latents else 16

    def batches_in_flight(
        self, geometry: Geometry, device: Literal["cpu", "cuda"], pipeline: int
    ) -> int:
        """Batches whose tokens may be held at once (config/vllm.py, max_concurrent_batches).

        A CPU does not schedule ahead. Before 0.29 only plain dense models did it in a pipeline.
        """
        if not self.are_batches_in_flight:
            return 1
        if device == "cpu":
            return pipeline
        if pipeline == 1:
            return 2
        return pipeline + (1 if self.is_pipeline_overlapped or _is_plain(geometry) else 0)

    def _is_small(self, name: str) -> bool:
        return (self.is_a100_small and "a100" in name) or (self.is_gb10_small and "gb10" in name)


def _is_plain(geometry: Geometry) -> bool:
    return not any(
        isinstance(layer.attention, Linear) or isinstance(layer.feed_forward, Experts)
        for layer in geometry.layers
    )


@lru_cache(maxsize=256)
def rules(version: str | None) -> Rules:
    """The rules of a version: "0.32", "0.32.0", "0.15.2rc1"; None: of what we ship.

    What is newer than the newest known counts as that, what is older than 0.6 as 0.6. Raises
    SettingsError for what is no version.
    """
    key = SHIPPED if version is None else _clamped(version)
    holds = {rule: key >= since for rule, since in _SINCE.items()}
    for rule, until in _UNTIL.items():
        holds[rule] = holds.get(rule, True) and key < until
    return Rules(
        version=key,
        default_utilization=next(value for since, value in _UTILIZATION if key >= since),
        group_slack=next(value for since, value in _SLACK if key >= since),
        latent_block_tokens=next(value for since, value in _LATENT_BLOCK if key >= since),
        **holds,
    )


def _clamped(version: str) -> tuple[int, int]:
    match = _VERSION.fullmatch(version.strip().lower())
    if match is None:
        problem = f"{version!r} is not a version of vLLM"
        raise SettingsError("plan", "engine-version", problem, "0.32")
    return max(OLDEST, min(NEWEST, (int(match[1]), int(match[2]))))
