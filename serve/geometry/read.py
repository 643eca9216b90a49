"""config.json, and safetensors headers where they are at hand → Geometry."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from serve.geometry.compare import check_size, check_tensors, check_total, is_unpacked, refuse_wish
from serve.geometry.config import read_shape
from serve.geometry.fields import read_fields
from serve.geometry.headers import parts_in
from serve.geometry.naming import place
from serve.geometry.parts import made_parts, parts_of
from serve.shape import Geometry, Tensor

_MADE_FROM_PLAIN = "fp8"
_ENCODER = "vision_config"
_QUANT = ("quantization_config", "compression_config")


def read_geometry(
    config: Mapping[str, Any],
    tensors: Sequence[Tensor] | None = None,
    is_sample: bool = False,
    checkpoint_bytes: int | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
) -> Geometry:
    """The whole geometry of a model.

    `tensors`: headers of all safetensors of the checkpoint, or (`is_sample`) of some of them;
    `checkpoint_bytes`: of all safetensors. `dtype`, `quantization`: what the operator wishes
    instead of what the config says. Raises BadFile where the config lacks a field or contradicts
    itself, or where the headers disagree with it; SettingsError for an impossible wish.
    """
    shape = read_shape(config, dtype, quantization)
    text = read_fields(config)[0].content
    computed = replace(shape, parts=parts_of(shape, text), checkpoint_bytes=checkpoint_bytes)
    has_encoder = any(table.has(_ENCODER) for table in read_fields(config))
    if not tensors:
        return _without_encoder(computed) if has_encoder else computed
    if shape.quant is not None and not _is_packed(config) and is_unpacked(tensors):
        return _packed_at_load(computed)
    placed = place(tensors, len(shape.layers))
    check_tensors(placed, shape, text, is_sample)
    if is_sample:
        made = made_parts(shape, text)
        check_size(tensors, computed, made, has_encoder)
        sampled = replace(computed, basis="sampled")
        return _without_encoder(sampled) if has_encoder else sampled
    parts, notes = parts_in(placed, shape, text)
    if not has_encoder:
        check_total(parts, computed)
    on_disk = checkpoint_bytes or sum(tensor.n_bytes for tensor in tensors)
    notes = (*computed.notes, *notes)
    return replace(computed, parts=parts, basis="headers", notes=notes, checkpoint_bytes=on_disk)


def _without_encoder(computed: Geometry) -> Geometry:
    note = "the encoder of images is not in the sum: some percent more"
    return replace(computed, notes=(*computed.notes, note))


def _is_packed(config: Mapping[str, Any]) -> bool:
    """Does the config say itself how the weights are packed?"""
    return any(table.has(name) for table in read_fields(config) for name in _QUANT)


def _packed_at_load(computed: Geometry) -> Geometry:
    if computed.quant is not None and computed.quant.method != _MADE_FROM_PLAIN:
        raise refuse_wish(computed.quant.method)
    return replace(
        computed, notes=(*computed.notes, "the weights are packed while they are loaded")
    )
