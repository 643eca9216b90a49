"""Tiny models as bytes, specs for them, and a store that records what it is told."""

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serve.catalog import ModelSpec
from serve.catalog.spec import License
from serve.errors import NotPulled
from serve.sources import HubSource, Source
from serve.store import Access, Store

REPO = "org/tiny"


def safetensors(tensors: Mapping[str, bytes]) -> bytes:
    """A true safetensors file of one-dimensional U8 tensors."""
    header, begin = {}, 0
    for name, data in tensors.items():
        span = [begin, begin + len(data)]
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": span}
        begin += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


def model_files(weight_bytes: int = 4096) -> dict[str, bytes]:
    """The files of a repository with one shard, and things that nobody should fetch."""
    return {
        "config.json": json.dumps({"architectures": ["LlamaForCausalLM"]}).encode(),
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}',
        "chat_template.jinja": b"{{ messages }}",
        "model.safetensors": safetensors(
            {"w": (bytes(range(251)) * (weight_bytes // 251 + 1))[:weight_bytes]}
        ),
        "README.md": b"# Tiny",
        "modeling_tiny.py": b"raise SystemExit('remote code ran')",
        "pytorch_model.bin": b"pickle" * 400,
        "original/consolidated.safetensors": safetensors({"w": b"x" * 2048}),
    }


def sharded_files(shards: int, shard_bytes: int) -> dict[str, bytes]:
    """The files of a repository with several shards, each of its own content."""
    files = model_files()
    del files["model.safetensors"]
    names = [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
    for number, name in enumerate(names):
        files[name] = safetensors({f"w{number}": bytes([number]) * shard_bytes})
    index = {"weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    return files


FETCHED = {
    "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "model.safetensors",
}  # fmt: skip


def spec(source: Source, name: str = "tiny") -> ModelSpec:
    """A catalog entry with this source."""
    return ModelSpec(name, "Tiny", source, License("mit", "yes"), "LlamaForCausalLM", 128, "1K")


HUB_SPEC = spec(HubSource(REPO))


def no_convert(gguf: Path, target: Path) -> None:
    raise AssertionError("nothing to convert here")


def no_wheel(package: str, version: str, folder: Path) -> Path:
    raise AssertionError("no wheel is wanted here")


def access_at(
    tmp_path: Path, endpoint: str = "http://127.0.0.1:9", token: str | None = None
) -> Access:
    """The way to a Hub, with HF_HOME below `tmp_path`."""
    return Access(endpoint, token, tmp_path / "hf", no_convert, no_wheel)


def store_at(
    tmp_path: Path, endpoint: str = "http://127.0.0.1:9", token: str | None = None,
    convert: Callable[[Path, Path], None] = no_convert,
    fetch_wheel: Callable[[str, str, Path], Path] = no_wheel,
) -> Store:  # fmt: skip
    """A store with both homes below `tmp_path`."""
    access = Access(endpoint, token, tmp_path / "hf", convert, fetch_wheel)
    return Store(tmp_path / "home", access)


def tell(n_bytes: int) -> None:
    """Say a step on stdout, for a test that reads it. One write a line: `print` makes two, and
    those of several threads may mingle."""
    sys.stdout.write(f"{n_bytes}\n")
    sys.stdout.flush()


@dataclass
class Recorder:
    """Progress that remembers. `on_note` lets a test act when somebody waits."""

    labels: list[str] = field(default_factory=list)
    totals: list[int | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    advanced: int = 0
    running: int = 0
    files: int = 0
    noted: threading.Event = field(default_factory=threading.Event)
    on_advance: Callable[[int], None] = lambda n: None

    def start(self, label: str, total_bytes: int | None, total_files: int = 0) -> None:
        self.labels.append(label)
        self.totals.append(total_bytes)
        self.running += 1

    def advance(self, n_bytes: int) -> None:
        self.advanced += n_bytes
        self.on_advance(n_bytes)

    def file_done(self) -> None:
        self.files += 1

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.noted.set()

    def finish(self) -> None:
        self.running -= 1


def nothing_is_held(tmp_path: Path) -> bool:
    """Whether the store below `tmp_path` has no weights at all, not even for the Hub's spec."""
    store = store_at(tmp_path)
    with contextlib.suppress(NotPulled):
        store.weights(HUB_SPEC)
        return False
    return store.list() == () and not list((tmp_path / "home" / "manifests").glob("*.json"))
