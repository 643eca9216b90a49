"""What was decided: where and with which limits a model will run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serve.catalog import ModelSpec


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator asks for; None = you decide."""

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

    `gpus`: indices of the cards, empty on a CPU. `cores`: logical CPUs to bind to, empty on a GPU.
    `kv_cache_bytes` is per device. `kv_tokens` is what fits in it.
    `parts`: the sum, label → bytes per device.
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
