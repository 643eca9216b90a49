"""What a look at a repository gives, without its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve.shape import Tensor


@dataclass(frozen=True, slots=True)
class Look:
    """`tensors`: those of every file, or of some (`is_sample`). `checkpoint_bytes`: all files of
    weights together. `n_requests`, `n_bytes`: what the look took from the network."""

    revision: str
    config: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    is_sample: bool
    checkpoint_bytes: int
    n_requests: int
    n_bytes: int
