"""Feeding a LAN from one machine, as it is typed: pull, lock, mirror; elsewhere pull --locked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG
from tests.fakes.fake_hub import FakeHub
from tests.mirror.houses import House
from tests.mirror.test_life import process
from tests.store.models import model_files

MODEL, REPO = "qwen3-0.6b", "Qwen/Qwen3-0.6B"


def machine(folder: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`inhouse …` on a machine of its own, as far as a folder is one."""
    folder.mkdir(exist_ok=True)
    places = {"INHOUSE_HOME": str(folder / "home"), "HF_HOME": str(folder / "hf")}
    return subprocess.run(
        [sys.executable, "-m", "serve", *arguments], cwd=folder, text=True, check=False,
        capture_output=True, env=dict(os.environ) | places | {"HF_ENDPOINT": endpoint},
    )  # fmt: skip


@pytest.fixture
def first(tmp_path: Path) -> House:
    """Machine 1: has pulled from the Hub, and written a lock."""
    files = {k: v for k, v in model_files().items() if not k.endswith((".py", ".bin"))}
    files["config.json"] = json.dumps(CONFIG | {"architectures": ["Qwen3ForCausalLM"]}).encode()
    with FakeHub({REPO: files}) as hub:
        for arguments in (("pull", MODEL), ("lock", MODEL)):
            ran = machine(tmp_path / "1", hub.endpoint, *arguments)
            assert ran.returncode == 0, ran.stderr
    return House(tmp_path / "1")


def manifests(folder: Path) -> list[tuple[object, ...]]:
    found = (json.loads(p.read_text()) for p in (folder / "home" / "manifests").glob("*.json"))
    return [
        (one["source"], one["revision"], one["digest"],
         [(f["path"], f["size"], f["sha256"], f["oid"]) for f in one["files"]])
        for one in found
    ]  # fmt: skip


def test_nothing_but_an_address_and_a_lock(first: House, tmp_path: Path) -> None:
    lock = first.folder / "models.lock"
    second = tmp_path / "2"
    second.mkdir()
    (second / "models.lock").write_bytes(lock.read_bytes())
    with process(first) as mirror:
        endpoint = mirror.facts["endpoint"]
        ran = machine(second, endpoint, "pull", MODEL, "--locked")
        assert ran.returncode == 0, ran.stderr
        assert manifests(second) == manifests(first.folder) != []

        third = tmp_path / "3"
        third.mkdir()
        locked = json.loads(lock.read_text())
        wanted = locked["models"][MODEL]["files"]["tokenizer.json"]
        locked = json.loads(lock.read_text().replace(wanted["sha256"], "0" * 64))
        (third / "models.lock").write_text(json.dumps(locked))
        refused = machine(third, endpoint, "pull", MODEL, "--locked")
        assert refused.returncode == 4 and manifests(third) == []
