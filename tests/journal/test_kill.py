"""A gateway is killed at any moment: every record whose call had returned is there."""

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serve.journal import End, Journals, Start
from tests.journal.folder import read_all
from tests.journal.records import end

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("commit", ["group", "each"])
def test_nothing_is_lost_when_gateways_are_killed(tmp_path: Path, commit: str) -> None:
    chance = random.Random(commit)
    for number, segment_bytes in enumerate((2**16, 2**20, 2**23)):
        folder, told = tmp_path / f"journal{number}", tmp_path / f"told{number}"
        told.write_bytes(bytes([255] * 8))
        arguments = [str(folder), str(told), commit, str(segment_bytes)]
        argv = [sys.executable, "-m", "tests.journal.child", *arguments]
        with subprocess.Popen(argv, cwd=ROOT) as child:
            wait_for_first(told, child)
            threading.Event().wait(chance.uniform(0.01, 0.3))
            child.kill()
        check(folder, int.from_bytes(told.read_bytes(), sys.byteorder))


def wait_for_first(told: Path, child: "subprocess.Popen[bytes]") -> None:
    pause = threading.Event()
    while int.from_bytes(told.read_bytes(), sys.byteorder) - 1 >= 2**63 - 1:
        assert child.poll() is None
        pause.wait(0.005)


def check(folder: Path, calls: int) -> None:
    """So many calls had returned, two for each request; one more may have done its work."""
    (writer,) = Journals(folder).writers()
    assert writer.is_gone
    records = read_all(folder)
    starts = [record for record in records if isinstance(record, Start)]
    ends = [record for record in records if isinstance(record, End)]
    done, is_half = divmod(calls, 2)
    assert [s.id for s in starts] == [f"r{number}" for number in range(len(starts))]
    assert done + is_half <= len(starts) <= done + 1
    assert ends == [end(number) for number in range(0, 2 * len(ends), 2)]
    assert (done + 1) // 2 <= len(ends) <= (done + 2) // 2
    counts = Journals(folder).delivered(writer)
    for unfinished in [s for s in starts if int(s.id[1:]) % 2][: done // 2]:
        assert unfinished.slot == 0 or counts[unfinished.slot] == int(unfinished.id[1:]) % 1000
