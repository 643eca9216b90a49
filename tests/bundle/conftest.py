"""A machine with a Hub, one without, and a bundle between them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundle.machines import HUB_SPEC, REPO, Machine
from tests.fakes.fake_hub import FakeHub
from tests.store.models import model_files


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: model_files(60_000)}) as running:
        yield running


@pytest.fixture
def here(tmp_path: Path, hub: FakeHub) -> Machine:
    """Pulled from the Hub."""
    machine = Machine(tmp_path / "here", (HUB_SPEC,), hub.endpoint)
    machine.store.pull(HUB_SPEC)
    return machine


@pytest.fixture
def there(tmp_path: Path) -> Machine:
    """Behind the gap, with the same catalog."""
    return Machine(tmp_path / "there", (HUB_SPEC,))


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


@pytest.fixture
def bundle(here: Machine, stick: Path) -> Path:
    """The whole bundle in one file."""
    return here.export(stick / "x.inhouse").files[0]


@pytest.fixture
def parts(here: Machine, stick: Path) -> tuple[Path, ...]:
    """The same in parts."""
    return here.export(stick / "y.inhouse", max_bytes=24_000).files
