"""What was decided: where and with which limits a model will run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serve.catalog import ModelSpec


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator asks for; None = you decide.

    `context_tokens` is a limit: a model that was made for less gets what it was made for, or what
    its extension gives, where its catalog entry has one.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    context_tokens: int | None = None
    kv_cache_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """The weights as the plan needs them: what they are of, where they lie, how large they are.

    `digest` names the bytes (hex); equal digests load alike.
    """

    spec: ModelSpec
    path: Path
    digest: str
    weights_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One engine's place and limits, with the sum that shows why.

    `gpus`: NVML indices of the cards, `gpu_uuids` their names for CUDA_VISIBLE_DEVICES, both empty
    on a CPU. `cores`: logical CPUs to bind to, empty on a GPU. `kv_cache_bytes` is per device and
    `kv_tokens` what fits in it: both hold exactly if `is_kv_fixed` (the engine is told the size),
    else they are what we expect the engine to measure. `gpu_memory_utilization` is a share of the
    card's total. `parts`: the sum, label → bytes per device. `note`: what the operator should know,
    a context that was shortened for instance.
    """

    subject: Subject
    device: Literal["cpu", "cuda"]
    gpus: tuple[int, ...]
    cores: tuple[int, ...]
    tensor_parallel: int
    context_tokens: int
    kv_cache_bytes: int
    kv_tokens: int
    gpu_memory_utilization: float
    parts: tuple[tuple[str, int], ...]
    gpu_uuids: tuple[str, ...] = ()
    is_kv_fixed: bool = True
    note: str | None = None
