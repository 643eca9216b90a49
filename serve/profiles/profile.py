"""What was measured at one launch, and under which conditions it holds."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """Everything that the measured terms depend on.

    `weights`: digest of the weights. `device`: name of the card with its memory in whole MiB
    ("NVIDIA H100 80GB HBM3 81079MiB"), or the processor's name. `engine_version`: "0.32".
    `kv_dtype`: "auto", "fp8". `more`: digest of what else the engine is told, by the operator or by
    the catalog, and that may take memory too; "" for nothing.
    """

    weights: str
    device: str
    engine_version: str
    tensor_parallel: int
    pipeline_parallel: int
    data_parallel: int
    max_num_batched_tokens: int
    max_num_seqs: int
    kv_dtype: str
    is_eager: bool
    more: str = ""

    def told(self, *words: Sequence[object]) -> "ProfileKey":
        """This key for an engine that is told these words besides the plan: nothing, if they are
        all empty."""
        if not any(words):
            return self
        digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()
        return replace(self, more=digest[:16])


@dataclass(frozen=True, slots=True)
class Profile:
    """Bytes on the fullest device of one launch; None: the engine did not say.

    `other_bytes`: non-torch growth. `available_kv_bytes`: what was left of the budget
    (`budget_bytes`) before the cache was made; None where its size was told. `kv_blocks`,
    `block_tokens`: from `vllm:cache_config_info`. `measured_at`: unix seconds.
    """

    key: ProfileKey
    measured_at: float
    model: str
    weights_bytes: int | None
    activation_bytes: int | None
    graph_bytes: int | None
    other_bytes: int | None
    budget_bytes: int | None
    available_kv_bytes: int | None
    kv_blocks: int | None
    block_tokens: int | None
    kv_tokens: int | None
    ready_after_s: float | None = None
    outcome: Literal["ready", "failed"] = "ready"
