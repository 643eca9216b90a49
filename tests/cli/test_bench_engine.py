import json
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import House

PROGRAM = Path(__file__).parents[2] / "scripts" / "bench-engine"


def test_it_compares_bare_and_ours(house: House) -> None:
    argv = [sys.executable, str(PROGRAM), "--quick", "--rounds", "1"]
    argv += ["--python", str(house.folder / "python")]
    ran = subprocess.run(argv, cwd=house.folder, capture_output=True, text=True, timeout=110)
    assert ran.returncode == 0, ran.stderr
    record = json.loads((house.folder / "bench-engine.json").read_text())
    metrics = {
        "first ready s", "ready s", "tok/s, 1 streams", "tok/s, 16 streams",
        "TTFT s, cold", "TTFT s, warm",
    }  # fmt: skip
    assert {name: set(found) for name, found in record["figures"].items()} == dict.fromkeys(
        ("bare", "socket", "gateway"), metrics
    )
    table = (house.folder / "bench-engine.md").read_text()
    assert table == ran.stdout and "| bare " in table and table.count("×") == 18
