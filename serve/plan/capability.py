"""What a card can compute with: the model's format, the KV cache's, and vLLM itself."""

from serve.hardware import Gpu, Machine
from serve.plan.plan import Wishes
from serve.plan.traits import has_latent
from serve.plan.wishes import refusal
from serve.shape import Geometry

Capability = tuple[int, int]

# vLLM's CUDA 13 wheels are built for Turing and newer.
LEAST_CAPABILITY: Capability = (7, 5)
# vLLM 0.32 model_executor/layers/quantization/*.py, get_min_capability.
_QUANTISED: dict[str, Capability] = {"fp8": (7, 5), "awq": (7, 5), "mxfp4": (8, 0)}
BFLOAT16: Capability = (8, 0)
# v1/attention/backends: Triton and MLA read 8-bit keys from Ada on, FlashInfer (for plain heads)
# from Ampere on, if a compiler is there.
_KV_FP8: Capability = (8, 9)
_KV_FP8_BY_FLASHINFER: Capability = (8, 0)


def usable(geometry: Geometry, machine: Machine, wishes: Wishes) -> tuple[Gpu, ...]:
    """The cards that can run the model as wished; all of them for a plan on the processor.

    Raises SettingsError with the first card's reason where none can.
    """
    if wishes.device == "cpu" or not machine.gpus:
        return machine.gpus
    able = tuple(card for card in machine.gpus if problem(geometry, card, wishes) is None)
    if able:
        return able
    raise refusal("gpus", problem(geometry, machine.gpus[0], wishes) or "no card can run it")


def problem(geometry: Geometry, card: Gpu, wishes: Wishes) -> str | None:
    """Why this card cannot run the model as wished, in words; None: it can."""
    for what, needed in _needs(geometry, wishes):
        if card.compute_capability < needed:
            has, least = _show(card.compute_capability), _show(needed)
            return f"{card.name} has compute capability {has}; {what} needs {least}"
    return None


def can_hold_fp8_keys(geometry: Geometry, cards: tuple[Gpu, ...]) -> bool:
    """May a KV cache in fp8 be recommended? On a processor: where its attention backend reads it
    (v1/attention/backends/cpu_attn.py; mla/cpu_mla.py does not)."""
    if not cards:
        return not has_latent(geometry)
    return all(card.compute_capability >= _KV_FP8 for card in cards)


def _needs(geometry: Geometry, wishes: Wishes) -> list[tuple[str, Capability]]:
    needs = [("vLLM", LEAST_CAPABILITY)]
    if geometry.quant is not None and geometry.quant.method in _QUANTISED:
        needs.append((f"{geometry.quant.method} weights", _QUANTISED[geometry.quant.method]))
    if wishes.dtype == "bfloat16":
        needs.append(("bfloat16", BFLOAT16))
    if (wishes.kv_dtype or "").startswith("fp8"):
        least = _KV_FP8 if has_latent(geometry) else _KV_FP8_BY_FLASHINFER
        needs.append(("a KV cache in fp8", least))
    return needs


def _show(capability: Capability) -> str:
    return ".".join(map(str, capability))
