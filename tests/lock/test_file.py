"""The lock on disk: the same bytes for the same lock, and a refusal with its place for the rest."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from serve.errors import BadFile, DiskFull, LockMismatch, NotWritable
from serve.lock import Lock, read_lock, write_lock
from serve.lock.file import text_of
from tests.lock.locks import lock, locks

ROOT = Path(__file__).parents[2]
TINY = """{
  "format": 1,
  "models": {
    "tiny": {
      "kind": "hf",
      "source": "org/tiny",
      "revision": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
      "license": "MIT",
      "entry": "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
      "digest": "DIGEST",
      "files": {
        "config.json": {"size": 2, "sha256": "ZEROS"},
        "model.safetensors": {"size": 4096, "sha256": "ZEROS"}
      }
    }
  }
}
"""


@given(locks)
def test_what_is_written_is_read_and_written_again_byte_by_byte(
    tmp_path_factory: pytest.TempPathFactory, any_lock: Lock
) -> None:
    file = tmp_path_factory.mktemp("lock") / "models.lock"
    write_lock(file, any_lock)
    assert read_lock(file) == any_lock
    assert file.read_text(encoding="utf-8") == text_of(read_lock(file))
    assert list(json.loads(file.read_text(encoding="utf-8"))) == ["format", "models"]


def test_one_file_of_a_model_is_one_line() -> None:
    text = text_of(lock("tiny"))
    digest = lock("tiny").models[0].digest
    assert text == TINY.replace("DIGEST", digest).replace("ZEROS", "0" * 64)
    assert text_of(Lock()) == '{\n  "format": 1,\n  "models": {}\n}\n'


def test_the_order_in_which_models_come_is_of_no_matter() -> None:
    some = lock("a", "b", "c")
    assert text_of(Lock(some.models[::-1])) == text_of(some)


def test_a_lock_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LockMismatch) as caught:
        read_lock(tmp_path / "models.lock")
    assert caught.value.what == "lock file" and caught.value.actual == str(tmp_path / "models.lock")


def changed(**facts: Any) -> str:
    """The lock of `tiny` with other facts of the model."""
    record = json.loads(text_of(lock("tiny")))
    record["models"]["tiny"] |= facts
    return json.dumps(record)


FILE = {"size": 2, "sha256": "0" * 64}
BAD = {
    "not JSON": ("{", "is not JSON: line 1"),
    "empty": ("", "is not JSON"),
    "a list": ("[]", "valid dictionary"),
    "a newer format": ('{"format": 2, "new": 1}', "format that is unknown here: 2"),
    "no format": ('{"models": {}}', "format: Field required"),
    "a surprise": ('{"format": 1, "models": {}, "x": 1}', "x: Extra inputs are not permitted"),
    "a surprise below": (changed(x=1), "models.tiny.x: Extra inputs"),
    "a model twice": ('{"format": 1, "models": {"a": 1, "a": 2}}', "names something twice: 'a'"),
    "a file twice": (
        changed().replace('"model.safetensors"', '"config.json"'), "twice: 'config.json'",
    ),
    "no files": (changed(files={}), "models.tiny.files"),
    "a size that is text": (changed(files={"a": FILE | {"size": "2"}}), "files.a.size"),
    "a size that is true": (changed(files={"a": FILE | {"size": True}}), "files.a.size"),
    "a size below zero": (changed(files={"a": FILE | {"size": -1}}), "files.a.size"),
    "a hash that is short": (changed(files={"a": FILE | {"sha256": "0"}}), "files.a.sha256"),
    "a hash and a newline": (changed(files={"a": FILE | {"sha256": "0" * 64 + "\n"}}), "sha256"),
    "an unknown kind": (changed(kind="ftp"), "models.tiny.kind"),
    "a branch": (changed(revision="main"), "models.tiny.revision"),
    "a digest of other files": (changed(digest="0" * 64), "models.tiny: the digest is not that"),
    "deep": ("[" * 200_000, ""),
}  # fmt: skip


@pytest.mark.parametrize("why", BAD)
def test_a_lock_that_is_none_is_refused_with_its_place(tmp_path: Path, why: str) -> None:
    text, problem = BAD[why]
    file = tmp_path / "models.lock"
    file.write_text(text)
    with pytest.raises(BadFile) as caught:
        read_lock(file)
    assert caught.value.path == str(file) and problem in caught.value.problem


UNSAFE = [
    "../x",
    "a/../x",
    "/x",
    "a//b",
    "./a",
    "a/",
    "",
    ".",
    "..",
    "a\\b",
    "a\nb",
    "a\0b",
    "a" * 1001,
]


@pytest.mark.parametrize("path", UNSAFE)
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    file = tmp_path / "models.lock"
    file.write_text(changed(files={path: FILE}))
    with pytest.raises(BadFile) as caught:
        read_lock(file)
    assert "models.tiny: a path that is none: " in caught.value.problem


@pytest.mark.parametrize("content", [b"\xff\xfe{}", None])
def test_what_is_no_text(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "models.lock"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(BadFile):
        read_lock(file)


def test_a_folder_that_is_not_there_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(NotWritable):
        write_lock(tmp_path / "nowhere" / "models.lock", Lock())


def test_a_link_to_a_lock_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    file = tmp_path / "models.lock"
    file.symlink_to("shared/models.lock")
    write_lock(file, lock("tiny"))
    assert file.is_symlink() and read_lock(file) == lock("tiny")


def test_a_full_disk_leaves_the_lock_as_it_was(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        file = disk / "models.lock"
        write_lock(file, lock("tiny"))
        with pytest.raises(DiskFull):
            write_lock(file, lock(*(f"model-{number}" for number in range(400))))
        assert read_lock(file) == lock("tiny") and list(disk.iterdir()) == [file]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


WRITER = """
import itertools, sys
from pathlib import Path
from serve.lock import write_lock
from tests.lock.locks import lock
sizes = [lock("a"), lock(*(f"model-{n}" for n in range(400)))]
for one in itertools.cycle(sizes):
    write_lock(Path(sys.argv[1]), one)
    print("written", flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_lock(tmp_path: Path) -> None:
    file = tmp_path / "models.lock"
    for rounds in range(1, 6):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file)], cwd=ROOT, stdout=subprocess.PIPE
        )
        with child:
            assert child.stdout is not None
            for _ in range(rounds):
                assert child.stdout.readline()
            os.kill(child.pid, signal.SIGKILL)
        assert len(read_lock(file).models) in (1, 400)
