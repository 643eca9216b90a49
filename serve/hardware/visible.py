"""Which cards CUDA_VISIBLE_DEVICES leaves to us. Pure."""

import re

from serve.hardware.machine import Gpu

_KINDS = ("GPU-", "MIG-")
_INDEX = re.compile(r"\+?(\d{1,9})", re.ASCII)


def visible_gpus(gpus: tuple[Gpu, ...], names: str | None) -> tuple[Gpu, ...]:
    """The cards that `names` (CUDA_VISIBLE_DEVICES) allows; all of them if it is None, unset.

    As CUDA reads it (CUDA programming guide, environment variables) and torch beside it: indices,
    or beginnings of UUIDs that fit one card only, with commas; all that stands behind the first
    name without a card, "-1" for instance, or of the other sort, counts no more; a card that is
    named twice makes all of it void. Indices are NVML's, which are CUDA's with
    CUDA_DEVICE_ORDER=PCI_BUS_ID. An index stands for all MIG slices of its card: CUDA would take
    the first, but each engine can be given one of its own.
    """
    if names is None:
        return gpus
    chosen: list[Gpu] = []
    kind = next((kind for kind in _KINDS if names.strip().startswith(kind)), None)
    for name in names.split(","):
        meant = _by_uuid(gpus, name.strip(), kind) if kind else _by_index(gpus, name.strip())
        if not meant:
            break
        if any(gpu in chosen for gpu in meant):
            return ()
        chosen += meant
    return tuple(gpu for gpu in gpus if gpu in chosen)


def _by_uuid(gpus: tuple[Gpu, ...], name: str, kind: str) -> list[Gpu]:
    found = [gpu for gpu in gpus if gpu.uuid.startswith(name)] if name.startswith(kind) else []
    return found if len(found) == 1 else []


def _by_index(gpus: tuple[Gpu, ...], name: str) -> list[Gpu]:
    """C's strtoul reads it: what follows the digits counts for nothing."""
    digits = _INDEX.match(name)
    return [gpu for gpu in gpus if gpu.index == int(digits[1])] if digits else []
