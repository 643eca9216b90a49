"""A gateway writes; what it wrote is there for whoever reads, at once and after its end."""

import asyncio
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serve.errors import DiskFull, InhouseError, NotWritable
from serve.journal import Journal, Journals
from serve.journal.committing import Committer
from serve.journal.frames import frame
from serve.journal.records import Record
from tests.journal.folder import read_all
from tests.journal.records import end, refusal, start

SMALL = 64 * 2**10  # bytes of a segment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def fill(journal: Journal, requests: range) -> list[Record]:
    """Begin and end so many requests; what was written, in order."""
    written: list[Record] = []
    for number in requests:
        journal.start(start(number))
        journal.end(end(number))
        written += [start(number), end(number)]
    return written


def test_what_was_written_can_be_read_at_once(folder: Path) -> None:
    journal = Journal(folder, 3, "group")
    written = fill(journal, range(5))
    journal.refuse(refusal(1))
    assert read_all(folder) == [*written, refusal(1)]
    (writer,) = Journals(folder).writers()
    assert writer.name.startswith("03-") and not writer.is_gone
    journal.close()
    assert read_all(folder) == [*written, refusal(1)]
    assert Journals(folder).writers()[0].is_gone


def test_segments_follow_one_another(folder: Path) -> None:
    journal = Journal(folder, 0, "group", SMALL)
    written = fill(journal, range(1500))
    (writer,) = Journals(folder).writers()
    assert len(writer.segments) >= 4
    assert read_all(folder, most=7) == written
    journal.close()
    assert read_all(folder) == written
    sizes = {file.stat().st_size for file in folder.glob("*.journal")}
    assert sizes == {SMALL}


def test_nothing_but_what_was_written_is_left(folder: Path) -> None:
    journal = Journal(folder, 0, "group", SMALL)
    fill(journal, range(250))  # more than half of a segment
    journal.close()
    assert len(list(folder.glob("*.journal"))) == 1
    assert not list(folder.glob("*.part"))


def test_the_files_are_for_us_alone(folder: Path) -> None:
    journal = Journal(folder, 0, "group")
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    journal.close()


def test_two_gateways_write_side_by_side(folder: Path) -> None:
    journals = [Journal(folder, slot, "group") for slot in (0, 1)]
    written = [
        fill(journal, range(10 * slot, 10 * slot + 5)) for slot, journal in enumerate(journals)
    ]
    assert read_all(folder) == written[0] + written[1]
    for journal in journals:
        journal.close()


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    journal = Journal(None, 0, "each")
    slot = journal.take_slot()
    journal.count(slot, 5)
    journal.start(start(1))
    journal.end(end(1))
    journal.refuse(refusal(1))
    journal.free_slot(slot)
    asyncio.run(journal.committed())
    assert journal.problem is None
    journal.close()
    assert not list(tmp_path.glob("**/*.journal"))


def test_chunks_are_counted_where_others_see_them(folder: Path) -> None:
    journal = Journal(folder, 0, "group")
    first, second = journal.take_slot(), journal.take_slot()
    assert 0 not in (first, second) and first != second
    journal.count(first, 3)
    journal.count(second, 7)
    (writer,) = Journals(folder).writers()
    counts = Journals(folder).delivered(writer)
    assert (counts[first], counts[second]) == (3, 7)
    journal.free_slot(first)
    assert journal.take_slot() == first
    assert Journals(folder).delivered(writer)[first] == 0
    journal.close()
    assert Journals(folder).delivered(writer)[second] == 7


def test_when_all_places_are_taken_the_rest_is_not_counted(folder: Path) -> None:
    journal = Journal(folder, 0, "group")
    taken = [journal.take_slot() for _ in range(2**16)]
    assert taken.count(0) == 1
    journal.count(0, 9)
    journal.free_slot(0)
    assert journal.take_slot() == 0
    journal.free_slot(taken[0])
    assert journal.take_slot() == taken[0]
    journal.close()


def test_a_record_that_is_too_much_is_written_smaller(folder: Path) -> None:
    journal = Journal(folder, 0, "group")
    long = start(1)
    journal.start(type(long)("i" * 10**6, *[getattr(long, f) for f in long.__struct_fields__[1:]]))
    journal.end(end(2))
    ids = [record.id for record in read_all(folder)]
    assert ids == ["i" * 300, "r2"]
    journal.close()


@pytest.mark.parametrize("commit", ["group", "each"])
def test_whoever_waits_hears_when_it_is_on_the_disk(folder: Path, commit: str) -> None:
    journal = Journal(folder, 0, "each" if commit == "each" else "group")

    async def request(number: int) -> None:
        fill(journal, range(number, number + 1))
        await journal.committed()

    async def all_of_them() -> None:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(request(number))

    asyncio.run(all_of_them())
    assert len(read_all(folder)) == 400
    journal.close()


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can be made larger than a segment's half."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL // 2, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_nothing_starts_and_all_that_runs_can_end(folder: Path) -> None:
    journal = Journal(folder, 0, "each", SMALL)
    begun: list[int] = []
    size = 0
    with full_disk():
        with pytest.raises(DiskFull):
            for number in range(10**6):
                journal.start(start(number))
                begun.append(number)
                size += len(frame(start(number)))
                wait_if(size > SMALL / 2, lambda: journal.problem is not None)
        assert isinstance(journal.problem, DiskFull)
        journal.refuse(refusal(1))
        for number in begun[-100:]:
            journal.end(end(number))
        asyncio.run(journal.committed())
    records = read_all(folder)
    assert [r.id for r in records[-100:]] == [f"r{number}" for number in begun[-100:]]
    assert refusal(1) not in records
    wait_if(True, lambda: started(journal))
    fill(journal, range(500))
    journal.close()


def test_a_journal_for_which_there_is_no_room_is_not_opened(folder: Path) -> None:
    with full_disk(), pytest.raises(DiskFull):
        Journal(folder, 0, "group", SMALL)
    assert not list(folder.glob("*.part"))


def test_a_journal_in_no_folder_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritable):
        Journal(tmp_path / "file", 0, "group")


def test_a_disk_that_fails_is_told_to_all_who_wait() -> None:
    failing = threading.Event()

    def harden() -> int:
        if failing.is_set():
            raise NotWritable("journal", "Input/output error")
        return 10

    committer = Committer(harden, lambda: None)

    async def wait() -> None:
        async with asyncio.timeout(30):
            await committer.wait(10)
            failing.set()
            waiting = [asyncio.ensure_future(committer.wait(11)) for _ in range(3)]
            gone = asyncio.ensure_future(committer.wait(11))
            await asyncio.sleep(0)
            gone.cancel()
            told = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(each) for each in told] == [NotWritable] * 3

    asyncio.run(wait())
    assert isinstance(committer.problem, InhouseError)
    committer.close()


def started(journal: Journal) -> bool:
    try:
        journal.start(start(1))
    except DiskFull:
        return False
    return True


def wait_if(is_needed: bool, condition: Callable[[], bool]) -> None:
    """Until the thread has seen it."""
    pause = threading.Event()
    while is_needed and not condition():
        pause.wait(0.01)
