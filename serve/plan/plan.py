"""What is wished, what is weighed, what was decided: where and with which limits models run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serve.catalog import ModelSpec
from serve.profiles import ProfileKey
from serve.shape import Parallel


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator asks for; None = you decide. Fields that vLLM has too are called as there.

    `context_tokens` (max_model_len) is a limit: a model that was made for less gets what it was
    made for, or what its extension gives, where its catalog entry has one; with `is_strict` a
    longer one is refused instead. `concurrency`: requests of that length that must fit at once.
    `available_kv_bytes`: what an engine is known to have left for the KV cache of each device; it
    replaces our sum (planning only). `kv_cache_bytes`: what the engine is told to take.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    context_tokens: int | None = None
    kv_cache_bytes: int | None = None
    concurrency: int | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_dtype: str | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    data_parallel: int | None = None
    decode_context_parallel: int | None = None
    is_expert_parallel: bool | None = None
    gpu_memory_utilization: float | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    block_tokens: int | None = None
    is_eager: bool = False
    engine_version: str | None = None
    available_kv_bytes: int | None = None
    is_strict: bool = False


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
class Layout:
    """Every decision, made. Tokens and sequences are per engine step, as vLLM counts them.

    `kv_dtype`: "auto" (the model's own) or one of vLLM's fp8 names. `block_tokens`: what is asked
    for; the KV arithmetic may raise it. `version`: of the engine ("0.32").
    """

    parallel: Parallel
    context_tokens: int
    max_num_batched_tokens: int
    max_num_seqs: int
    kv_dtype: str
    block_tokens: int
    gpu_memory_utilization: float
    version: str
    is_eager: bool = False


Basis = Literal["exact", "estimated", "measured", "given"]


@dataclass(frozen=True, slots=True)
class Term:
    """One line of the sum, in bytes per device, with the interval that it lies in.

    "exact": arithmetic on the files; "estimated": a documented formula; "measured": an earlier
    launch under the same conditions; "given": by the operator.
    """

    name: str
    n_bytes: int
    low_bytes: int
    high_bytes: int
    basis: Basis


@dataclass(frozen=True, slots=True)
class Estimate:
    """One layout on one kind of device: the whole sum, whether it fits or not. Bytes per device.

    Of the device that has the least left, which decides for all (they run in step):
    `budget_bytes` is what the engine may take (utilization × total), `terms` what goes into it
    before the KV cache ("weights", "activations", "CUDA graphs", "other"), `outside_bytes` what the
    CUDA context and NCCL take beside the budget. `available_kv_bytes` may be negative.
    `needed_kv_bytes`: what the asked requests need (one of full length at least).
    `kv_tokens`, `max_concurrency`: the two figures of vLLM's log. `missing_bytes`: 0 if it fits.
    `needed_by_free_bytes`: how much more than is free the budget asks for (0: it starts); it is
    counted in `missing_bytes`.
    """

    layout: Layout
    total_bytes: int
    free_bytes: int
    budget_bytes: int
    terms: tuple[Term, ...]
    outside_bytes: int
    available_kv_bytes: int
    needed_kv_bytes: int
    kv_bytes_per_token: int
    block_tokens: int
    kv_blocks: int
    kv_tokens: int
    max_concurrency: float
    longest_context_tokens: int
    missing_bytes: int
    needed_by_free_bytes: int = 0

    @property
    def fits(self) -> bool:
        return self.missing_bytes == 0


@dataclass(frozen=True, slots=True)
class Cure:
    """One change that makes it fit. `flags`: as typed; `price`: what one pays, in words."""

    change: str
    flags: tuple[str, ...]
    price: str


@dataclass(frozen=True, slots=True)
class Speed:
    """What physics allows, as upper limits: bytes over bandwidth, operations over FLOP/s.

    `streams`: how many run at once in `decode_tokens_s_all`, the sum over all of them.
    """

    decode_tokens_s: float
    streams: int
    decode_tokens_s_all: float
    prefill_tokens_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What planning gives when nobody is going to start anything: the sum, and the ways out.

    `devices`: names of the cards it is on, or of the processor. `cures`: empty if it fits.
    `basis`: where the room for the KV cache comes from, "given", "measured" or "estimated";
    `weights_basis`: see `Geometry.basis`. `copies`: engines like this that the machine holds.
    """

    model: str
    device: Literal["cpu", "cuda"]
    devices: tuple[str, ...]
    estimate: Estimate
    cures: tuple[Cure, ...]
    speed: Speed | None
    basis: str
    notes: tuple[str, ...] = ()
    copies: int = 1
    weights_basis: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """One engine's place and limits, with the sum that shows why.

    `gpus`: NVML indices of the cards, `gpu_uuids` their names for CUDA_VISIBLE_DEVICES, both empty
    on a CPU. `cores`: logical CPUs to bind to, empty on a GPU. `kv_cache_bytes` is per device and
    `kv_tokens` what fits in it: both hold exactly if `is_kv_fixed` (the engine is told the size),
    else they are what we expect the engine to measure. `gpu_memory_utilization` is a share of the
    card's total. `parts`: the sum, label → bytes per device. `note`: what the operator should know,
    a context that was shortened for instance. `max_num_batched_tokens`, `max_num_seqs`, `kv_dtype`,
    `dtype`: None where vLLM's own default is meant. `is_calibrated`: the sum was measured before.
    `key` (`keys.profile_key`): where this launch's measurement is kept; None: nowhere.
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
    pipeline_parallel: int = 1
    is_expert_parallel: bool = False
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    kv_dtype: str | None = None
    dtype: str | None = None
    max_concurrency: float = 0.0
    device_name: str = ""
    is_calibrated: bool = False
    key: ProfileKey | None = None
