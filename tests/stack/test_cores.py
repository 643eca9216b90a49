"""Nobody in the house leaves a core file, nor gives one to a program that collects them."""

import resource
from pathlib import Path

import pytest

from tests.stack.house import running_house


def test_no_process_leaves_a_core(tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    if most == 0:
        pytest.skip("here nobody may leave one anyway")
    with running_house(tmp_path / "house", {"quick": {}}, {}) as house:
        assert house.process is not None
        for pid in (house.process.pid, *house.gateways(), *house.engines().values()):
            # 1: see `_leave_no_core`
            assert resource.prlimit(pid, resource.RLIMIT_CORE) == (1, 1)
