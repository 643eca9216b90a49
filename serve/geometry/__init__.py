"""The shape of a model and the bytes of its weights, from config.json and safetensors headers.

Pure: no I/O. In: parsed JSON. Out: `Geometry` (its types: `serve.shape`). Refuses to guess: what is
missing or contradicts itself is a `BadFile` that names the field.
"""

from serve.geometry.read import read_geometry
from serve.geometry.weights import is_divisible, layers_per_stage, weights_per_stage

__all__ = ["is_divisible", "layers_per_stage", "read_geometry", "weights_per_stage"]
