"""What was downloaded before is not downloaded again: after resets, kills and with leftovers."""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serve.errors import HashMismatch, SourceUnreachable
from tests.fakes.fake_hub import FakeHub
from tests.store.models import (
    HUB_SPEC,
    REPO,
    Recorder,
    model_files,
    nothing_is_held,
    safetensors,
    sharded_files,
    store_at,
)

MIB = 2**20
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
        # A reset throws away what the kernel holds unread, some MiB on loopback.
        [partial] = (tmp_path / "hf").rglob("*.incomplete")
        had = partial.stat().st_size
        assert had > 0
        hub.faults.resets = 0
        sent = hub.sent_bytes
        assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).total_bytes > BIG
        assert hub.sent_bytes - sent == len(hub.repos[REPO]["model.safetensors"]) - had


@contextmanager
def pulling(tmp_path: Path, hub: FakeHub) -> Iterator[subprocess.Popen[bytes]]:
    """A process that pulls, as far as the hub lets it."""
    argv = [sys.executable, "-m", "tests.store.pull_child", str(tmp_path), hub.endpoint]
    with subprocess.Popen(argv, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            child.kill()


def until(child: subprocess.Popen[bytes], n_bytes: int) -> None:
    """Wait until the process has told of so many bytes."""
    assert child.stdout is not None
    told = 0
    while told < n_bytes:
        told += int(child.stdout.readline())


@pytest.mark.parametrize("place", [3 * 64 * 1024, 5 * MIB, 22 * MIB + 64 * 1024])
def test_a_killed_pull_is_continued(tmp_path: Path, place: int) -> None:
    with FakeHub({REPO: model_files(BIG)}) as hub:
        hub.faults.stall_at = place
        with pulling(tmp_path, hub) as child:
            assert hub.faults.stalled.wait(60)
            if place > MIB:
                until(child, place - 2 * MIB)
            child.send_signal(signal.SIGKILL)
        assert nothing_is_held(tmp_path)
        assert not list(tmp_path.rglob("model.safetensors"))
        [partial] = (tmp_path / "hf").rglob("*.incomplete")
        had = partial.stat().st_size

        hub.faults.stall_at = None
        hub.requests.clear()
        sent = hub.sent_bytes
        weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
        [get] = hub.asked_for("GET", "/cdn/")
        again = hub.sent_bytes - sent  # before the hub ends and what stalls goes on
    if had:
        assert get.headers["Range"] == f"bytes={had}-"
    assert again == len(hub.repos[REPO]["model.safetensors"]) - had
    assert hub.asked_for("GET", "/resolve/") == []
    assert weights.total_bytes > BIG


@pytest.mark.parametrize("place", [0, 5 * MIB])
def test_ctrl_c_ends_within_a_second_and_keeps_what_is_there(tmp_path: Path, place: int) -> None:
    with FakeHub({REPO: model_files(BIG)}) as hub:
        hub.faults.stall_at = place
        with pulling(tmp_path, hub) as child:
            assert hub.faults.stalled.wait(60)
            until(child, max(place - 2 * MIB, 1))
            began = time.monotonic()
            child.send_signal(signal.SIGINT)
            code = child.wait(10)
            took_s = time.monotonic() - began
        assert code == -signal.SIGINT
        assert took_s < 2  # one, on a machine that does nothing else
        assert nothing_is_held(tmp_path)
        partials = list((tmp_path / "hf").rglob("*.incomplete"))
        assert sum(partial.stat().st_size for partial in partials) >= max(place - 2 * MIB, 0)
        hub.faults.stall_at = None
        assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).total_bytes > BIG


def test_an_error_ends_the_others_promptly_and_they_are_continued(tmp_path: Path) -> None:
    files = sharded_files(3, 4 * MIB)
    wrong = "model-00001-of-00003.safetensors"
    with FakeHub({REPO: files}) as hub:
        hub.faults.stall_at = 2 * MIB  # the others are in the middle, and would be for long
        hub.faults.changed[wrong] = files[wrong][:-1] + b"?"  # refused at once
        began = time.monotonic()
        with pytest.raises(HashMismatch) as caught:
            store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
        assert time.monotonic() - began < 5  # a silent server would be given 10 s, three times
        assert caught.value.file == wrong
        assert nothing_is_held(tmp_path)

        hub.faults.stall_at, hub.faults.changed = None, {}
        hub.faults.resume.set()
        hub.requests.clear()
        assert store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).total_bytes > 12 * MIB
        gets = hub.asked_for("GET", "/cdn/")
    assert len(gets) == 3


def test_two_processes_do_the_work_once(tmp_path: Path) -> None:
    with FakeHub({REPO: model_files(BIG)}) as hub:
        hub.faults.stall_at = MIB  # until both are at it
        with pulling(tmp_path, hub) as first, pulling(tmp_path, hub) as second:
            assert hub.faults.stalled.wait(60)
            hub.faults.stall_at = None
            hub.faults.resume.set()
            for child in (first, second):
                child.communicate(timeout=60)
                assert child.returncode == 0
        assert len(hub.asked_for("GET", "/cdn/")) == 1
        assert hub.sent_bytes < BIG + MIB
    assert store_at(tmp_path).weights(HUB_SPEC).total_bytes > BIG


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Four files of 96 MiB at once; what the process takes besides Python and its libraries."""
    shard = tmp_path / "shard"
    with shard.open("wb") as file:
        header = safetensors({"w": b""}).replace(b"[0]", b"[%d]" % (96 * MIB))
        header = header[8:].replace(b"[0, 0]", b"[0, %d]" % (96 * MIB))
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(file.tell() + 96 * MIB)
    files: dict[str, bytes | Path] = dict(sharded_files(4, 8))
    for number in range(4):
        own = tmp_path / f"shard-{number}"  # of its own content: the same would be fetched once
        own.write_bytes(shard.read_bytes()[:-1] + bytes([number]))
        files[f"model-{number + 1:05}-of-00004.safetensors"] = own
    with FakeHub({REPO: files}) as hub, pulling(tmp_path, hub) as child:
        assert child.stdout is not None
        last = child.stdout.read().splitlines()[-1]
        assert child.wait(60) == 0
    assert int(last.removeprefix(b"peak ")) < 200 * MIB


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
