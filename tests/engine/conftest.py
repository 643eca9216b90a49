"""What tests on the real engine share: one real stack for all that do not break it; a tiny model of
each architecture, what vLLM knows of it, and pools to start it in."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serve.catalog import load_catalog
from serve.engine import Runtimes
from serve.engine.command import runtime_cache
from serve.engine.runtime import Runtime
from serve.store import Store
from tests.engine.pools import Turns
from tests.engine.stack import STARTER, Stack, running
from tests.store.models import access_at

# Read when this file is loaded, before any test has been given a home of its own: the runtime and
# the starter's weights are installed once, by scripts/test.
HOME = Path(os.environ.get("INHOUSE_HOME") or Path.home() / ".local" / "share" / "inhouse")


@dataclass(frozen=True, slots=True)
class Prepared:
    """`models`: a folder for each architecture of `make_tiny.py`. `cache`: what engines keep."""

    models: Path
    cache: Path


@pytest.fixture(scope="session")
def home() -> Path:
    """The caller's home, with the runtime (by scripts/test) and the starter's weights in it."""
    pull = [sys.executable, "-m", "serve", "pull", STARTER]
    done = subprocess.run(
        pull, env=os.environ | {"INHOUSE_HOME": str(HOME)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return HOME


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    return Runtimes(HOME, None).find("cpu")


@pytest.fixture(scope="session")
def prepared(home: Path, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two children of ten seconds each, side by side, once for all tests."""
    made = Prepared(tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("cache"))
    (starter,) = (held for held in Store(home, access_at(home)).list() if held.name == STARTER)
    architectures = {spec.architecture for spec in load_catalog().specs}
    told = {
        "make_tiny.py": [str(starter.path), str(made.models)],
        "learn.py": sorted(architectures),
    }
    environ = os.environ | {"VLLM_CACHE_ROOT": str(vllm_cache(runtime, made.cache))}
    children = [
        subprocess.Popen(
            [str(runtime.python), str(Path(__file__).with_name(script)), *arguments],
            env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for script, arguments in told.items()
    ]  # fmt: skip
    for child in children:
        _, said = child.communicate(timeout=200)
        assert child.returncode == 0, said[-3000:]
    return made


def vllm_cache(runtime: Runtime, cache: Path) -> Path:
    """VLLM_CACHE_ROOT of the engines whose pool was given `cache`."""
    return runtime_cache(runtime, cache) / "vllm"


@pytest.fixture(scope="session")
def models(prepared: Prepared) -> Path:
    """Tiny models with the starter's tokenizer, in a folder each, named by their architecture."""
    return prepared.models


@pytest.fixture(scope="session")
def cache(prepared: Prepared) -> Path:
    """A pool's cache, in which vLLM finds what it knows of the catalog's architectures."""
    return prepared.cache


@pytest.fixture(scope="package")  # gone before tests elsewhere count processes
def turns(runtime: Runtime, cache: Path) -> Iterator[Turns]:
    """Pools with spares, for tests that start engines and do not measure seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="ih-", dir="/tmp") as folder,
        Turns(runtime, cache, Path(folder)) as turns,
    ):
        yield turns


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder whose path leaves room for a unix socket's 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ih-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="package")  # gone before tests elsewhere count processes
def stack(home: Path) -> Iterator[Stack]:
    """The starter model, served, with all that clients may ask for."""
    parser = ("--engine-arg=--enable-auto-tool-choice", "--engine-arg=--tool-call-parser=hermes")
    flags = ("--spares", "0", "--batches", "on", *parser)
    with (
        tempfile.TemporaryDirectory(prefix="ih-", dir="/tmp") as folder,
        running(Stack(home, Path(folder) / "run", *flags)) as stack,
    ):
        yield stack
