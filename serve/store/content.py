"""Which files of a model are taken, and what makes us refuse it.

Taken are safetensors, JSON and what tokenizers read. Never pickles, never Python (design.md §6);
no second copies (`original/`, `consolidated*`) and no other runtimes' formats.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from serve.errors import UnsafeWeights
from serve.store.manifest import is_safe_path
from serve.store.safetensors import check_file

INDEX = "model.safetensors.index.json"
_SMALL_SUFFIXES = (".json", ".jinja", ".tiktoken", ".model")
_SMALL_NAMES = ("merges.txt", "vocab.txt")
_SKIPPED_FOLDERS = ("original", "metal", "onnx", "openvino", "gguf", "coreml", "runs")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def small_files(paths: Iterable[str]) -> list[str]:
    """Configuration, tokenizer and templates among a model's files."""
    return sorted(path for path in paths if _is_small(path))


def weight_files(paths: Iterable[str], index: dict[str, Any] | None) -> list[str]:
    """The safetensors files to load: those that the index names, or all at the root.

    UnsafeWeights if there are none, or if the index names one that is not there.
    """
    paths = list(paths)
    at_root = [path for path in paths if path.endswith(".safetensors") and "/" not in path]
    if index is not None:
        return _named_by(index, at_root)
    if "model.safetensors" in at_root:
        return ["model.safetensors"]
    chosen = sorted(path for path in at_root if not path.startswith("consolidated"))
    if not chosen:
        pickle = next((path for path in paths if path.endswith(_PICKLE_SUFFIXES)), None)
        reason = "only pickled weights, which can run code" if pickle else "no safetensors files"
        raise UnsafeWeights(pickle or "model.safetensors", reason)
    return _all_safe(chosen)


def _named_by(index: dict[str, Any], present: list[str]) -> list[str]:
    named = index.get("weight_map")
    if not isinstance(named, dict) or not named:
        raise UnsafeWeights(INDEX, "has no weight_map")
    for file in named.values():
        if file not in present:
            raise UnsafeWeights(INDEX, f"names a file that is not there: {file!r}")
    return _all_safe(sorted(set(named.values())))


def read_index(root: Path) -> dict[str, Any] | None:
    """The index of sharded weights, None where there is none; UnsafeWeights if it is not JSON."""
    return read_object(root, INDEX) if (root / INDEX).is_file() else None


def read_object(root: Path, name: str) -> dict[str, Any]:
    """A JSON file of the model; UnsafeWeights if it is missing or holds no object."""
    try:
        content = json.loads((root / name).read_bytes())
    except FileNotFoundError as error:
        raise UnsafeWeights(name, "is missing") from error
    except (ValueError, RecursionError) as error:
        raise UnsafeWeights(name, f"is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UnsafeWeights(name, "is not a JSON object")
    return content


def check_settings(root: Path) -> None:
    """UnsafeWeights if config.json is unusable or the tokenizer needs the repository's Python.

    `auto_map` in config.json alone is fine: vLLM has DeepSeek's and others' architectures
    itself and never runs the repository's. A tokenizer named there has no second source.
    """
    read_object(root, "config.json")
    name = "tokenizer_config.json"
    if (root / name).is_file() and read_object(root, name).get("auto_map"):
        raise UnsafeWeights(name, "auto_map: the tokenizer needs Python from the repository")


def check_weights(root: Path, names: Iterable[str]) -> None:
    """UnsafeWeights unless every safetensors file has a true header."""
    for name in names:
        check_file(root / name, name)


def _is_small(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    wanted = name.endswith(_SMALL_SUFFIXES) or name in _SMALL_NAMES
    top = path.partition("/")[0] if folder else ""
    return wanted and top not in _SKIPPED_FOLDERS and is_safe_path(path)


def _all_safe(paths: list[str]) -> list[str]:
    for path in paths:
        if not is_safe_path(path):
            raise UnsafeWeights(path, "a name that we do not write to disk")
    return paths
