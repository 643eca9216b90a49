"""One real stack for all tests that do not break it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.stack import Stack, running

# Read when this file is loaded, before any test has been given a home of its own: the runtime and
# the starter's weights are installed once, by scripts/test.
HOME = Path(os.environ.get("INHOUSE_HOME") or Path.home() / ".local" / "share" / "inhouse")


@pytest.fixture(scope="session")
def home() -> Path:
    return HOME


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder whose path leaves room for a unix socket's 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ih-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The starter model, served."""
    with (
        tempfile.TemporaryDirectory(prefix="ih-", dir="/tmp") as folder,
        running(Stack(HOME, Path(folder) / "run")) as stack,
    ):
        yield stack
