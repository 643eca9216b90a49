"""A real engine has no way out, and still answers through its socket."""

import json
import subprocess
import sys

import pytest

from serve.shipped import shipped
from tests.engine.stack import Stack

pytestmark = pytest.mark.engine


def test_no_probe_gets_out_of_the_engines_namespace(stack: Stack) -> None:
    model = stack.model()
    if model.isolation == "off":
        pytest.skip("this system grants no namespaces; inhouse doctor says why")
    api = stack.engine_process("api")
    script = shipped("inside/escape.py")
    result = subprocess.run(
        [sys.executable, str(script), str(api.pid)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    ways = json.loads(result.stdout)
    assert len(ways) >= 15
    assert "open" not in ways.values()
    assert stack.ask().status_code == 200
