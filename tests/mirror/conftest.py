from pathlib import Path

import pytest

from tests.mirror.houses import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "one")
