"""A repository's own Python: found by its names in the settings, refused, left out, or approved.

Transformers runs Python from beside the weights where a settings file says `auto_map`. That its
switch for this is off has not been enough (three CVEs in vLLM alone: the names were followed
before the switch was asked). So engines never see the names, unless the catalog approves the very
revision.

`remote_code` of the catalog entry decides (`ModelSpec`):
- None: a model that names Python is refused.
- "unneeded": the Python is not fetched and its names are taken out of the settings; vLLM has the
  architecture itself. A tokenizer that is named so needs a `tokenizer.json`, which says the same
  without code; where there is none (GLM-4's and Kimi's tiktoken files) the model is refused.
- a commit: the Python of this revision is taken, hashed and locked as all other files.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serve.errors import UnsafeWeights
from serve.store.content import parse_object, read_object
from serve.store.manifest import Manifest
from serve.store.progress import Progress

UNNEEDED = "unneeded"
_NAMING_KEYS = ("auto_map", "custom_pipelines")
_CONFIG, _TOKENIZER = "config.json", "tokenizer_config.json"
_FAST = "PreTrainedTokenizerFast"
# All that transformers reads classes' names from.
SETTINGS = (
    _CONFIG, _TOKENIZER, "processor_config.json", "preprocessor_config.json",
    "video_preprocessor_config.json", "generation_config.json",
)  # fmt: skip


def is_approved(remote_code: str | None, revision: str) -> bool:
    """Whether the Python of this revision may be fetched and run. UnsafeWeights if that of another
    revision is approved: what was read and what would run are not the same."""
    if remote_code in (None, UNNEEDED):
        return False
    if remote_code != revision:
        reason = f"approved for revision {remote_code} (remote_code), this is {revision}"
        raise UnsafeWeights("the repository's Python", reason)
    return True


def check_settings(root: Path, remote_code: str | None) -> None:
    """UnsafeWeights if config.json is unusable, or if settings name Python that is not approved or
    not there. `root` holds the model's small files; that the approval is for this revision,
    `is_approved` has seen."""
    read_object(root, _CONFIG)
    for name in SETTINGS:
        settings = read_object(root, name) if (root / name).is_file() else {}
        named = sorted(set(_named(settings)))
        if not named:
            continue
        if remote_code is None:
            raise UnsafeWeights(name, f"auto_map: it needs Python from the repository: {named[0]}")
        if remote_code == UNNEEDED:
            if _names_tokenizer(name, settings) and not _has_fast_tokenizer(root):
                reason = f"auto_map: no tokenizer.json, so the tokenizer needs Python: {named[0]}"
                raise UnsafeWeights(name, reason)
        else:
            _check_there(root, name, named)


def check_held(found: Manifest, remote_code: str | None) -> None:
    """UnsafeWeights unless weights that are as they were sealed may be loaded under this word of
    the catalog."""
    is_approved(remote_code, found.revision)
    check_settings(found.path, remote_code)


def python_files(root: Path) -> tuple[str, ...]:
    """The files with Python that settings below `root` name, there or not; for people."""
    present = (name for name in SETTINGS if (root / name).is_file())
    named = {module for name in present for module in _named(read_object(root, name))}
    return tuple(sorted(f"{module.rpartition('.')[0] or module}.py" for module in named))


def without_code(text: bytes, name: str) -> bytes:
    """A settings file as it was, byte for byte, or written anew without the names of Python."""
    if name not in SETTINGS:
        return text
    settings = parse_object(text, name)
    if not any(_named(settings)):
        return text
    stripped = _stripped(settings)
    if name == _TOKENIZER and settings.get("tokenizer_class") in set(_classes(settings)):
        stripped["tokenizer_class"] = _FAST  # reads tokenizer.json alone
    return json.dumps(stripped, ensure_ascii=False, indent=2).encode()


def _check_there(root: Path, name: str, named: list[str]) -> None:
    for reference in named:
        repo, dashes, _ = reference.rpartition("--")
        if dashes:
            reason = f"auto_map names Python of another repository, which nobody approved: {repo}"
            raise UnsafeWeights(name, reason)
        file = reference.rpartition(".")[0] + ".py"
        if "/" in reference or not (root / file).is_file():
            raise UnsafeWeights(name, f"auto_map names a file that is not there: {file}")


def _named(value: Any) -> Iterator[str]:
    """Every class of the repository's that is named, at any depth."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _texts(below) if key in _NAMING_KEYS else _named(below)
    elif isinstance(value, list):
        for below in value:
            yield from _named(below)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for below in value.values() if isinstance(value, dict) else value:
            yield from _texts(below)


def _classes(settings: dict[str, Any]) -> Iterator[str]:
    return (reference.rpartition(".")[2] for reference in _named(settings))


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _stripped(below) for k, below in value.items() if k not in _NAMING_KEYS}
    return [_stripped(below) for below in value] if isinstance(value, list) else value


def _names_tokenizer(name: str, settings: dict[str, Any]) -> bool:
    """Older files have a list there, which is a tokenizer's."""
    auto_map = settings.get("auto_map")
    if isinstance(auto_map, dict):
        return "AutoTokenizer" in auto_map
    return name == _TOKENIZER and bool(auto_map)


def _has_fast_tokenizer(root: Path) -> bool:
    if not (root / "tokenizer.json").is_file():
        return False
    model = read_object(root, "tokenizer.json").get("model")
    return isinstance(model, dict) and bool(model.get("vocab"))


def lacks_code(found: Manifest, remote_code: str | None) -> bool:
    """Whether weights were sealed before their Python was approved, and so are without it."""
    if remote_code != found.revision:
        return False
    try:
        named = set(python_files(found.path))
    except UnsafeWeights:
        return False  # not as they were sealed: others see that
    return not named <= {record.path for record in found.files}


def tell(name: str, root: Path, is_approved: bool, progress: Progress) -> None:
    """Say what becomes of the repository's Python, if there is any."""
    files = ", ".join(python_files(root))
    if files and is_approved:
        progress.note(f"{name} RUNS PYTHON OF ITS REPOSITORY, approved for this revision: {files}")
    elif files:
        progress.note(f"{name} names Python of its own, which is neither kept nor run: {files}")
