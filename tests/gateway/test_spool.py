"""Nothing readable on the disk, and nothing that somebody has changed is believed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import NoSuchObject
from serve.gateway.spool import LOCK, Spool, new_id

KEY, OTHER = bytes(range(32)), bytes(32)
CANARY = b"the quick brown canary"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", KEY)


@pytest.fixture
def name() -> str:
    return new_id("file")


def files(spool: Spool) -> Iterator[Path]:
    return (path for path in spool.folder.iterdir() if path.is_file())


def test_what_was_written_is_read(spool: Spool, name: str) -> None:
    frames = [b"card", CANARY * 1000, b"", b"end"]
    spool.seal(name, frames)
    assert list(spool.frames(name)) == frames and spool.head(name) == b"card"
    spool.seal(name, [b"other"])
    assert list(spool.frames(name)) == [b"other"]
    spool.seal(name, [])
    assert list(spool.frames(name)) == [b""]


def test_only_its_owner_may_read_it(spool: Spool, name: str) -> None:
    spool.seal(name, [CANARY])
    assert (spool.folder.stat().st_mode & 0o777, (spool.folder / name).stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )


def test_no_plain_text_and_never_twice_the_same(spool: Spool, name: str) -> None:
    seen = set()
    for _ in range(2):
        spool.seal(name, [CANARY, CANARY])
        spool.log(f"{new_id('batch')}.log").close()
        for path in files(spool):
            assert CANARY[:8] not in path.read_bytes()
        seen.add((spool.folder / name).read_bytes())
    assert len(seen) == 2
    text = seen.pop()
    assert len({text[at : at + 16] for at in range(0, len(text), 16)}) == -(-len(text) // 16)


def test_another_key_and_another_name_open_nothing(spool: Spool, name: str) -> None:
    spool.seal(name, [CANARY])
    with pytest.raises(NoSuchObject):
        list(Spool(spool.folder, OTHER).frames(name))
    other = new_id("file")
    (spool.folder / name).rename(spool.folder / other)
    with pytest.raises(NoSuchObject):
        list(spool.frames(other))


def test_every_changed_byte_and_every_cut_is_found(spool: Spool, name: str) -> None:
    frames = [b"one", b"two", b"three"]
    spool.seal(name, frames)
    path = spool.folder / name
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(NoSuchObject):
            list(spool.frames(name))
        path.write_bytes(good[:at])
        with pytest.raises(NoSuchObject):
            list(spool.frames(name))
    path.write_bytes(good + b"x")
    with pytest.raises(NoSuchObject):
        list(spool.frames(name))


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.binary(max_size=40), max_size=4))
def test_a_log_has_what_was_whole(
    tmp_path_factory: pytest.TempPathFactory, first: list[bytes], then: list[bytes]
) -> None:
    spool, name = Spool(tmp_path_factory.mktemp("spool"), KEY), f"{new_id('batch')}.log"
    log = spool.log(name)
    for frame in first:
        log.append(frame)
    log.close()
    path = spool.folder / name
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"\0\0\0\x40torn")  # what a crash leaves
    log = spool.log(name)
    assert path.stat().st_size == whole
    for frame in then:
        log.append(frame)
    assert list(log.frames()) == first + then
    log.append(b"after reading")
    assert list(log.frames()) == [*first, *then, b"after reading"]
    log.close()


def test_names_are_not_paths(spool: Spool) -> None:
    (spool.folder.parent / "secret").write_bytes(b"x")
    for name in ("../secret", "/etc/passwd", "file-", "file-" + "0" * 32 + "/..", LOCK, ""):
        with pytest.raises(NoSuchObject):
            spool.head(name)


def test_links_and_folders_are_no_objects(spool: Spool, name: str) -> None:
    (spool.folder / name).mkdir()
    with pytest.raises(NoSuchObject):
        spool.head(name)


def test_the_start_deletes_what_cannot_be_read(spool: Spool) -> None:
    mine, theirs, batch = new_id("file"), new_id("file"), new_id("batch")
    spool.seal(mine, [CANARY])
    spool.seal(batch, [CANARY])
    spool.mark(f"{batch}.cancel")
    spool.log(f"{batch}.log").close()
    other = Spool(spool.folder, OTHER)
    gone = new_id("batch")
    other.seal(theirs, [CANARY])
    log = other.log(f"{gone}.log")
    log.append(CANARY)
    log.close()
    for left in (f"{gone}.cancel", "passwords.txt", new_id("file"), LOCK):
        (spool.folder / left).touch()
    old, new = (spool.folder / f".{number:016x}.part" for number in (1, 2))
    for part in (old, new):
        part.touch()
    os.utime(old, (1, 1))
    assert spool.purge() == 5
    assert {path.name for path in files(spool)} == {
        mine,
        batch,
        f"{batch}.cancel",
        f"{batch}.log",
        LOCK,
        new.name,
    }


def test_names_of_objects(spool: Spool) -> None:
    batch, file = new_id("batch"), new_id("file")
    for name in (batch, f"{batch}.state", file):
        spool.seal(name, [b""])
    assert (spool.names("batch_"), spool.names("file-")) == ([batch], [file])
    spool.remove(batch, batch)
    assert spool.names("batch_") == []
