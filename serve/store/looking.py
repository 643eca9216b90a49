"""A look at weights without reading them: headers on disk, or some of those on a Hub."""

from pathlib import Path
from typing import Any

from serve.catalog import ModelSpec
from serve.errors import NotPulled
from serve.shape import Tensor
from serve.sources import DirSource, HubSource
from serve.store import content
from serve.store.access import Access
from serve.store.look import Look
from serve.store.safetensors import read_tensors


def tensors_of(root: Path) -> tuple[Tensor, ...]:
    """Every tensor in a folder of weights."""
    names = [path.name for path in root.iterdir()]
    files = content.weight_files(names, content.read_index(root))
    return tuple(tensor for name in files for tensor in read_tensors(root / name, name))


def config_of(root: Path) -> dict[str, Any]:
    """config.json, with the packing that ModelOpt's repositories keep in a file of its own."""
    config = content.read_object(root, "config.json")
    if "quantization_config" in config or not (root / content.PACKING).is_file():
        return config
    return config | {"quantization_config": content.read_object(root, content.PACKING)}


def look(spec: ModelSpec, access: Access) -> Look:
    """At the spec's source; see `Store.look`."""
    match spec.source:
        case HubSource() as source:
            # The Hub's client takes a quarter of a second to import; most runs need none.
            from serve.store import hub_look

            return hub_look.look(source, access)
        case DirSource(path):
            tensors = tensors_of(path)
            config = config_of(path)
            total = sum(tensor.n_bytes for tensor in tensors)
            return Look("", config, tensors, False, total, 0, 0)
        case _:
            raise NotPulled(spec.name)
