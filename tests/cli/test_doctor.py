"""`inhouse doctor`: every problem with its cure, and an exit code for scripts."""

import json
from pathlib import Path

import pytest

from serve.cli import output
from tests.cli.conftest import House, Inhouse


def test_without_a_runtime_the_exit_code_says_so(inhouse: Inhouse) -> None:
    looked = inhouse("doctor")
    assert looked.code == 6
    assert "missing  runtime: none\n         cure: inhouse engine install" in looked.out


def test_all_that_is_needed_is_there(inhouse: Inhouse, house: House) -> None:
    looked = inhouse("doctor", "--json")
    record = json.loads(looked.out)
    missing = [check for check in record["checks"] if not check["is_ok"] and check["is_needed"]]
    assert (looked.code, missing) == (0, [])
    names = {check["name"] for check in record["checks"]}
    assert {"runtime", "isolation", "memory", "clock", "disk", "orphans"} <= names
    assert record["facts"]["home"] and "gpus" in record["machine"]


def test_a_socket_that_would_be_too_deep_is_found(
    inhouse: Inhouse, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INHOUSE_RUN", str(tmp_path / ("x" * 100)))
    looked = inhouse("doctor")
    assert looked.code == 6 and "a shorter paths.run" in looked.out


def test_advice_is_told_apart_from_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    output.put_check("a", False, "x", "do", is_needed=True)
    output.put_check("b", False, "y", "try", is_needed=False)
    output.put_check("c", True, "z", None)
    assert capsys.readouterr().out.splitlines() == [
        "missing  a: x",
        "         cure: do",
        "advice   b: y",
        "         cure: try",
        "ok       c: z",
    ]
