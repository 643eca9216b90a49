"""Who a process is."""

import getpass
import os
from pathlib import Path

from serve.hardware.owners import read_owners
from tests.hardware.trees import put


def test_this_very_process() -> None:
    owner = read_owners(Path("/"), [os.getpid()])[os.getpid()]
    assert (owner.pid, owner.user, owner.used_bytes) == (os.getpid(), getpass.getuser(), None)
    assert owner.command and "py" in owner.command


def test_commands_as_the_kernel_writes_them(tmp_path: Path) -> None:
    put(tmp_path, "proc/7/cmdline", "python3\0-m\0vllm\0")
    put(tmp_path, "proc/8/cmdline", "")
    put(tmp_path, "proc/8/comm", "kworker\n")
    owners = read_owners(tmp_path, [7, 8, 9])
    assert {pid: owner.command for pid, owner in owners.items()} == {
        7: "python3 -m vllm",
        8: "kworker",
    }


def test_a_user_without_a_name_is_a_number(tmp_path: Path) -> None:
    put(tmp_path, "proc/7/cmdline", "x\0")
    if os.getuid() == 0:
        os.chown(tmp_path / "proc/7", 54321, -1)
        assert read_owners(tmp_path, [7])[7].user == "54321"
    else:
        assert read_owners(tmp_path, [7])[7].user == getpass.getuser()
