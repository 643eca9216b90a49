"""What every test gets: a home of its own. What every session must leave: nothing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

_MARK = "HOUSE_TESTS"  # inherited by every child, so that an orphan is known as ours
_FOREIGN = ("INHOUSE_", "HF_", "HUGGINGFACE_", "XDG_")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Each test's own home and data folders; none of the caller's settings is seen.

    Fixtures of a wider scope run before this one and still see the caller's `INHOUSE_HOME`.
    The runtime folder has a short path, because a unix socket's path ends at 107 bytes.
    """
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    runtime = Path(tempfile.mkdtemp(prefix="ih", dir="/tmp"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("INHOUSE_HOME", str(home / "inhouse"))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    yield home
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def nothing_left() -> Iterator[None]:
    """Fails the session when a process that a test started is alive at its end."""
    mark = str(os.getpid())
    os.environ[_MARK] = mark
    yield
    _, alive = psutil.wait_procs(_ours(mark), timeout=5)
    found = [f"{process.pid} {_command(process)}" for process in alive]
    for process in alive:
        process.kill()
    assert not found, f"processes left behind by tests: {found}"


def _ours(mark: str) -> list[psutil.Process]:
    children = set(psutil.Process().children(recursive=True))
    orphans = {other for other in psutil.process_iter() if _mark_of(other) == mark}
    return list((children | orphans) - {psutil.Process()})


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(_MARK)
    except (psutil.Error, OSError):  # another user's, or gone meanwhile
        return None


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return "(gone)"
