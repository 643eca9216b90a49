"""A machine without any network gets a model from a stick and serves it, on the real vLLM."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.stack import STARTER

pytestmark = [pytest.mark.engine, pytest.mark.timeout(420)]


def unshare() -> list[str]:
    """What makes an empty network namespace here; skips where nothing does."""
    for argv in (["unshare", "-n"], ["unshare", "-rn"]):
        if subprocess.run([*argv, "true"], capture_output=True).returncode == 0:
            return argv
    pytest.skip("this system grants no network namespaces")


def inhouse(home: Path, *arguments: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "serve", *arguments],
        env=os.environ | {"INHOUSE_HOME": str(home)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def test_a_bundle_is_served_in_an_empty_network_namespace(
    home: Path, tmp_path: Path, short_dir: Path
) -> None:
    alone = unshare()
    key, public = tmp_path / "key.pem", tmp_path / "pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    stick = tmp_path / "stick"
    stick.mkdir()
    flags = ["--max-size", "100MiB", "--sign", str(key)]
    inhouse(home, "bundle", "export", STARTER, str(stick / "starter.inhouse"), *flags)
    parts = sorted(map(str, stick.iterdir()))
    assert len(parts) == 3

    behind = tmp_path / "behind"  # a machine that has the runtime and nothing else
    behind.mkdir()
    (behind / "engines").symlink_to(home / "engines")
    ran = subprocess.run(
        [*alone, sys.executable, "-m", "tests.engine.airlock", str(behind), str(short_dir), *parts],
        env=os.environ
        | {"HF_HOME": str(tmp_path / "hf"), "INHOUSE_POLICY_SIGNERS": str(public)},
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-4000:]
    told = json.loads(ran.stdout)
    assert told["interfaces"] == ["lo"] and told["reached"] == []
    [weights] = told["imported"]["weights"]
    assert weights["name"] == STARTER and weights["via"] == "bundle starter.inhouse"
    assert told["imported"]["signer"]
    assert "Paris" in told["answer"]
