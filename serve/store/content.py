"""Which files of a model are taken, and what makes us refuse it.

Taken are safetensors, and of JSON and what tokenizers read those files that vLLM knows by name.
Never pickles; Python only where the catalog approves this very revision (`approval.py`); no second
copies (`original/`, `consolidated*`) and no other runtimes' formats.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from serve.errors import UnsafeWeights
from serve.store.paths import check_names, is_safe_path, shown
from serve.store.safetensors import check_file

INDEX = "model.safetensors.index.json"
PACKING = "hf_quant_config.json"
_SETTINGS = frozenset(
    {"config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"}
    | {"video_preprocessor_config.json", "quantize_config.json", "quant_config.json"}
    | {"quantization_config.json", PACKING, INDEX}
)
_TOKENIZER = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
    | {"vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model"}
    | {"sentencepiece.bpe.model", "tiktoken.model", "tekken.json", "chat_template.json"}
)
_EMBEDDERS = frozenset(
    {"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"}
)
_KNOWN = _SETTINGS | _TOKENIZER | _EMBEDDERS
_KNOWN_SUFFIXES = (".jinja", ".tiktoken")
_KNOWN_FOLDERED = ("1_Pooling/config.json",)
_TEMPLATES = "additional_chat_templates"
_MAX_SMALL_BYTES = 512 * 2**20
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def small_files(paths: Iterable[str], code: bool = False) -> list[str]:
    """Configuration, tokenizer and templates among a model's files; with `code` its Python too.

    UnsafeWeights if the list of files is made to deceive.
    """
    paths = list(paths)
    taken = sorted(path for path in paths if _is_small(path, code))
    check_names(taken, paths)
    return taken


def check_size(path: str, n_bytes: int) -> None:
    """UnsafeWeights if a file that is read as a whole is as large as only tensors are."""
    if not path.endswith(".safetensors") and n_bytes > _MAX_SMALL_BYTES:
        raise UnsafeWeights(shown(path), f"is too large: {n_bytes} bytes")


def weight_files(paths: Iterable[str], index: dict[str, Any] | None) -> list[str]:
    """The safetensors files to load: those that the index names, or all at the root.

    UnsafeWeights if there are none, if the index names one that is not there, or if a name is made
    to deceive.
    """
    paths = list(paths)
    at_root = [path for path in paths if path.endswith(".safetensors") and "/" not in path]
    if index is not None:
        chosen = _named_by(index, at_root)
    elif "model.safetensors" in at_root:
        chosen = ["model.safetensors"]
    else:
        chosen = sorted(path for path in at_root if not path.startswith("consolidated"))
    if not chosen:
        pickle = next((path for path in paths if path.endswith(_PICKLE_SUFFIXES)), None)
        reason = "only pickled weights, which can run code" if pickle else "no safetensors files"
        raise UnsafeWeights(shown(pickle or "model.safetensors"), reason)
    for path in chosen:
        if not is_safe_path(path):
            raise UnsafeWeights(shown(path), "a name that we do not write to disk")
    check_names(chosen, paths)
    return chosen


def is_loadable(path: str, code: bool) -> bool:
    """Whether an engine may see this file at all."""
    is_weights = path.endswith(".safetensors") and is_safe_path(path)
    return is_weights or _is_small(path, code)


def _named_by(index: dict[str, Any], present: list[str]) -> list[str]:
    named = index.get("weight_map")
    if not isinstance(named, dict) or not named:
        raise UnsafeWeights(INDEX, "has no weight_map")
    for file in named.values():
        if file not in present:
            raise UnsafeWeights(INDEX, f"names a file that is not there: {file!r:.80}")
    return sorted(set(named.values()))


def read_index(root: Path) -> dict[str, Any] | None:
    """The index of sharded weights, None where there is none; UnsafeWeights if it is not JSON."""
    return read_object(root, INDEX) if (root / INDEX).is_file() else None


def read_object(root: Path, name: str) -> dict[str, Any]:
    """A JSON file of the model; UnsafeWeights if it is missing or holds no object."""
    try:
        return parse_object((root / name).read_bytes(), name)
    except FileNotFoundError as error:
        raise UnsafeWeights(name, "is missing") from error


def parse_object(text: bytes, name: str) -> dict[str, Any]:
    """The content of a JSON file of the model; UnsafeWeights if it holds no object."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnsafeWeights(name, f"is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UnsafeWeights(name, "is not a JSON object")
    return content


def check_weights(root: Path, names: Iterable[str]) -> None:
    """UnsafeWeights unless every safetensors file has a true header."""
    for name in names:
        check_file(root / name, name)


def _is_small(path: str, code: bool) -> bool:
    folder, _, name = path.rpartition("/")
    if folder:
        is_wanted = path in _KNOWN_FOLDERED or (folder == _TEMPLATES and name.endswith(".jinja"))
    else:
        is_python = code and name.endswith(".py")
        is_wanted = name in _KNOWN or name.endswith(_KNOWN_SUFFIXES) or is_python
    return is_wanted and is_safe_path(path)
