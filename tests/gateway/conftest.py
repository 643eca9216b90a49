from collections.abc import Iterator

import pytest

from serve.roster import Roster
from tests.gateway.stack import FakeEngine, Stack, running_gateway


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway for all tests of a file; they may add and remove models."""
    with running_gateway(tmp_path_factory.mktemp("gw"), Roster(), max_body=1 << 20) as stack:
        yield stack


@pytest.fixture
def engine(stack: Stack) -> Iterator[FakeEngine]:
    """A model with one plain engine."""
    with stack.engine() as engine:
        yield engine
