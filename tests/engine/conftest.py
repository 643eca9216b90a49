"""One real stack for all tests that do not break it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.stack import STARTER, Stack, running

# Read when this file is loaded, before any test has been given a home of its own: the runtime and
# the starter's weights are installed once, by scripts/test.
HOME = Path(os.environ.get("INHOUSE_HOME") or Path.home() / ".local" / "share" / "inhouse")


@pytest.fixture(scope="session")
def home() -> Path:
    """The caller's home, with the runtime (by scripts/test) and the starter's weights in it."""
    pull = [sys.executable, "-m", "serve", "pull", STARTER]
    done = subprocess.run(
        pull, env=os.environ | {"INHOUSE_HOME": str(HOME)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return HOME


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder whose path leaves room for a unix socket's 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ih-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="package")  # gone before tests elsewhere count processes
def stack(home: Path) -> Iterator[Stack]:
    """The starter model, served."""
    with (
        tempfile.TemporaryDirectory(prefix="ih-", dir="/tmp") as folder,
        running(Stack(home, Path(folder) / "run", "--spares", "0")) as stack,
    ):
        yield stack
