"""Killed anywhere, the disk full or closed: a model is there or not, and the next run goes on."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.bundle import Trust, inspect
from serve.errors import BadFile, DiskFull, HashMismatch, NotWritable
from tests.bundle.machines import HUB_SPEC, Machine
from tests.fakes.fake_hub import FakeHub
from tests.store.models import Recorder, model_files

MIB = 2**20


def killed_after(lines: int, *arguments: object) -> bool:
    """Run the child, kill it when it has said as many lines; whether it was killed."""
    argv = [sys.executable, "-m", "tests.bundle.bundle_child", *map(str, arguments)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        for _ in range(lines):
            if not child.stdout.readline():
                break
        child.kill()
        child.wait()
        errors = child.stderr.read()
    assert child.returncode in (0, 4, -signal.SIGKILL), errors
    return child.returncode == -signal.SIGKILL


def test_an_import_that_is_killed_goes_on(there: Machine, parts: tuple[Path, ...]) -> None:
    chosen = random.Random(3)
    kills = 0
    while True:
        was_killed = killed_after(chosen.randrange(1, 12), "import", there.folder, *parts)
        kills += was_killed
        if there.store.manifests():
            break
        before = sum(path.stat().st_blocks for path in there.staged())
        assert before > 0, "what came is kept"
    assert kills > 1
    there.take(*parts)
    assert there.holds(HUB_SPEC) and there.staged() == []


def test_a_step_that_was_done_is_not_done_again(there: Machine, bundle: Path) -> None:
    assert killed_after(10, "import", there.folder, bundle)
    kept = len([path for path in there.staged() if path.suffix == ".pieces"])
    there.take(bundle)
    assert kept and (there.seen.totals[0] or 0) <= 60_000 - 4 * 4096
    assert there.holds(HUB_SPEC)


def test_an_import_that_is_killed_between_the_cache_and_the_seal(
    there: Machine, bundle: Path
) -> None:
    """The blobs are in the cache, the seal is not written yet: as if a pull had been killed."""
    there.take(bundle)
    for seal in (there.folder / "home" / "manifests").glob("*.json"):
        seal.unlink()
    assert not there.holds(HUB_SPEC)
    there.take(bundle)
    assert there.holds(HUB_SPEC)


def test_an_export_that_is_killed_leaves_nothing_under_a_name(
    here: Machine, there: Machine, stick: Path
) -> None:
    target = stick / "k.inhouse"
    for lines in (1, 7, 15):
        assert killed_after(lines, "export", here.folder, target, 24_000)
        for part in stick.glob("k.inhouse*"):
            assert all(p.problem is None for p in inspect([part], Trust(), Recorder()).parts)
            part.unlink()
    files = here.export(target, max_bytes=24_000).files
    assert [path.name for path in sorted(stick.iterdir())] == [path.name for path in files]
    there.take(*files)
    assert there.holds(HUB_SPEC)


def test_a_staged_piece_that_went_bad_is_fetched_again(
    there: Machine, parts: tuple[Path, ...]
) -> None:
    with pytest.raises(BadFile):
        there.take(*parts[:-1])
    biggest = max((p for p in there.staged() if not p.suffix), key=lambda p: p.stat().st_size)
    with biggest.open("r+b") as file:
        file.write(b"\xff" * 10)
    with pytest.raises(HashMismatch):
        there.take(parts[-1])
    assert not there.store.manifests() and not biggest.exists()
    there.take(*parts)
    assert there.holds(HUB_SPEC)


@pytest.mark.parametrize("tail", [b"0", b"000000", b"00000001"])
def test_a_torn_journal(there: Machine, parts: tuple[Path, ...], tail: bytes) -> None:
    with pytest.raises(BadFile):
        there.take(*parts[:2])
    for journal in [path for path in there.staged() if path.suffix == ".pieces"]:
        with journal.open("ab") as file:
            file.write(tail)
    there.take(*parts)
    assert there.holds(HUB_SPEC)


def test_a_staged_file_that_is_gone(there: Machine, parts: tuple[Path, ...]) -> None:
    with pytest.raises(BadFile):
        there.take(*parts[:-1])
    for path in [path for path in there.staged() if not path.suffix]:
        path.unlink()
    there.take(*parts)
    assert there.holds(HUB_SPEC)


def test_two_imports_at_once_do_the_work_once(there: Machine, bundle: Path) -> None:
    argv = [sys.executable, "-m", "tests.bundle.bundle_child", "import", str(there.folder)]
    children = [
        subprocess.Popen([*argv, str(bundle)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
    assert there.holds(HUB_SPEC) and there.staged() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path, left: int) -> Path:
    """Take the disk's room, but for `left` bytes."""
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_bsize
    ballast = place / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - left))
    return ballast


@pytest.fixture
def big(tmp_path: Path) -> Iterator[Machine]:
    with FakeHub({"org/tiny": model_files(3 * MIB)}) as hub:
        machine = Machine(tmp_path / "big", (HUB_SPEC,), hub.endpoint)
        machine.store.pull(HUB_SPEC)
        yield machine


def test_no_room_is_found_out_before(big: Machine, small_disk: Path, stick: Path) -> None:
    [bundle] = big.export(stick / "b.inhouse", piece_bytes=65536).files
    there = Machine(small_disk, (HUB_SPEC,))
    ballast = fill(small_disk, MIB)
    with pytest.raises(DiskFull) as told:
        there.take(bundle)
    assert told.value.needed_bytes and told.value.needed_bytes > 3 * MIB
    with pytest.raises(DiskFull):
        big.export(small_disk / "b.inhouse", piece_bytes=65536)
    assert not list(small_disk.glob("*.inhouse*")) and not list(small_disk.glob(".*"))
    ballast.unlink()
    there.take(bundle)
    assert there.holds(HUB_SPEC)


def test_the_disk_becomes_full_at_any_write(big: Machine, small_disk: Path, stick: Path) -> None:
    """Somebody else takes the room after it was looked for."""
    [bundle] = big.export(stick / "b.inhouse", piece_bytes=65536).files
    for at in (1, 10, 30, 14):  # the last one: while all is verified, before the seal
        there = Machine(small_disk, (HUB_SPEC,))
        left = [at]

        def take_room(n_bytes: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                fill(small_disk, 0)

        there.seen.on_advance = take_room
        with pytest.raises(DiskFull):
            there.take(bundle)
        assert there.store.manifests() == ()
        (small_disk / "ballast").unlink()
    there.seen.on_advance = lambda n: None
    there.take(bundle)
    assert there.holds(HUB_SPEC) and there.staged() == []


def test_the_stick_becomes_full(big: Machine, small_disk: Path) -> None:
    def take_room(n_bytes: int) -> None:
        if not (small_disk / "ballast").exists():
            fill(small_disk, 0)

    big.seen.on_advance = take_room
    with pytest.raises(DiskFull):
        big.export(small_disk / "b.inhouse", piece_bytes=65536)
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_a_disk_that_cannot_be_written(there: Machine, bundle: Path, small_disk: Path) -> None:
    machine = Machine(small_disk, (HUB_SPEC,))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(NotWritable):
        machine.take(bundle)
    with pytest.raises(NotWritable):
        there.take(bundle)
        there.export(small_disk / "x.inhouse")


def test_weights_and_staging_on_different_disks(
    tmp_path: Path, small_disk: Path, big: Machine, stick: Path
) -> None:
    """No hard links between them: the Hub client's cache gets copies, which are verified."""
    [bundle] = big.export(stick / "b.inhouse", piece_bytes=65536).files
    there = Machine(tmp_path / "split", (HUB_SPEC,))
    there.folder.mkdir()
    (there.folder / "hf").symlink_to(small_disk)
    there.take(bundle)
    assert there.holds(HUB_SPEC) and there.staged() == []
    for seal in (there.folder / "home" / "manifests").glob("*.json"):
        seal.unlink()
    for blob in small_disk.rglob("blobs/*"):
        blob.unlink()
    fill(small_disk, MIB)
    with pytest.raises(DiskFull):
        there.take(bundle)
    assert there.store.manifests() == ()
