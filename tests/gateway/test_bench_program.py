"""`scripts/bench-gateway`: its programs in C compile, understand each other, and count right."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "scripts" / "bench-gateway"


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("taskset")), reason="no cc or taskset")
def test_it_measures_its_own_upstream(tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    folder.mkdir()
    argv = [sys.executable, str(PROGRAM), "--parts", "self", "--quick"]
    argv += ["--docs", str(folder), "--folder", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "stream, 128 KB, 256 clients" in done.stdout
    assert list(folder.iterdir()) == []  # no page was written, and nothing is left behind
