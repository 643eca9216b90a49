import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "scripts" / "bench-store"


def test_it_compares_the_client_and_ours(tmp_path: Path) -> None:
    argv = [sys.executable, str(PROGRAM), "--gib", "0.03", "--files", "3", "--rounds", "2"]
    argv += ["--folder", str(tmp_path), "--out", str(tmp_path / "out")]
    ran = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert ran.returncode == 0, ran.stderr
    record = json.loads((tmp_path / "out.json").read_text())
    pulled = {"pull MiB/s", "pull MiB/s, on the disk", "CPU s per GiB", "peak memory MiB"}
    assert {name: set(found) for name, found in record["figures"]["pull"].items()} == dict.fromkeys(
        ("snapshot_download", "inhouse"), pulled
    )
    assert set(record["figures"]["verify"]) == {"sha256sum", "inhouse"}
    table = (tmp_path / "out.md").read_text()
    assert table == ran.stdout and "| pull MiB/s " in table and table.count("×") == 10
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == [
        "out.json", "out.md",
    ]  # fmt: skip
