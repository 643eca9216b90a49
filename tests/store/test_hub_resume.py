"""What was downloaded before is not downloaded again: after resets, kills and with leftovers."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.errors import SourceUnreachable
from tests.fakes.fake_hub import FakeHub
from tests.store.models import HUB_SPEC, REPO, Recorder, model_files, nothing_is_held, store_at

MIB = 2**20
# The client writes in pieces of 10 MiB, so only a bigger file can be continued.
BIG = 24 * MIB


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: model_files()}) as running:
        yield running


@pytest.mark.parametrize("resets", [1, 2])
def test_a_reset_connection_is_continued(tmp_path: Path, resets: int) -> None:
    with FakeHub({REPO: model_files(BIG)}) as hub:
        hub.faults.reset_at, hub.faults.resets = 23 * MIB, resets
        recorder = Recorder()
        weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC, recorder)
        gets = hub.asked_for("GET", "/cdn/")
    assert len(gets) == resets + 1
    assert all(get.headers.get("Range") for get in gets[1:])
    assert recorder.advanced == weights.total_bytes


def test_a_connection_that_is_always_reset(tmp_path: Path) -> None:
    with FakeHub({REPO: model_files(BIG)}) as hub:
        hub.faults.reset_at, hub.faults.resets = 23 * MIB, 10**9
        with pytest.raises(SourceUnreachable):
            store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
        assert nothing_is_held(tmp_path)
        hub.faults.resets = 0
        sent = hub.sent_bytes
        assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).total_bytes > BIG
        assert hub.sent_bytes - sent < BIG - 9 * MIB


def test_a_killed_pull_is_continued(tmp_path: Path) -> None:
    with FakeHub({REPO: model_files(BIG)}) as hub:
        hub.faults.stall_at = 22 * MIB
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.store.pull_child", str(tmp_path), hub.endpoint],
            cwd=Path(__file__).parents[2], stdout=subprocess.PIPE,
        )  # fmt: skip
        with child:
            assert child.stdout is not None
            # A piece is announced just before it is written: the second says that the first is.
            pieces = (int(line) for line in child.stdout)
            assert next(p for p in pieces if p > MIB) and next(p for p in pieces if p > MIB)
            os.kill(child.pid, signal.SIGKILL)
        assert nothing_is_held(tmp_path)
        assert not list(tmp_path.rglob("model.safetensors"))

        hub.faults.stall_at = None
        hub.requests.clear()
        sent = hub.sent_bytes
        weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
        [get] = hub.asked_for("GET", "/cdn/")
    assert get.headers["Range"].startswith("bytes=")
    assert hub.sent_bytes - sent < BIG - 9 * MIB
    assert hub.asked_for("GET", "/resolve/") == []
    assert weights.total_bytes > BIG


def leave_behind(tmp_path: Path, hub: FakeHub, content: bytes) -> None:
    """A partial file of the big one, as a pull that ended early leaves it."""
    sha256 = hashlib.sha256(hub.repos[REPO]["model.safetensors"]).hexdigest()
    blobs = tmp_path / "hf" / "hub" / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256}.inhouse.incomplete").write_bytes(content)


def test_a_leftover_that_is_too_long_is_no_trap(tmp_path: Path, hub: FakeHub) -> None:
    leave_behind(tmp_path, hub, b"x" * 10_000)
    assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).total_bytes > 0


def test_a_complete_leftover_is_not_fetched_again(tmp_path: Path, hub: FakeHub) -> None:
    leave_behind(tmp_path, hub, hub.repos[REPO]["model.safetensors"])
    assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).total_bytes > 0
    assert hub.asked_for("GET", "/cdn/") == []


def test_a_damaged_leftover_is_noticed_and_fetched_again(tmp_path: Path, hub: FakeHub) -> None:
    leave_behind(tmp_path, hub, b"x" * 1000)
    recorder = Recorder()
    weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC, recorder)
    assert recorder.advanced == weights.total_bytes
    assert "model.safetensors was damaged" in recorder.notes[0]
