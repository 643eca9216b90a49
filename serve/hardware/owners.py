"""Who a process is, from /proc: its command and its user."""

import pwd
from collections.abc import Iterable
from pathlib import Path

from serve.hardware.machine import GpuProcess


def read_owners(root: Path, pids: Iterable[int]) -> dict[int, GpuProcess]:
    """Those of the processes that can be seen from here; a container does not see the others."""
    found = ((pid, _owner(root / "proc" / str(pid), pid)) for pid in pids)
    return {pid: owner for pid, owner in found if owner is not None}


def _owner(folder: Path, pid: int) -> GpuProcess | None:
    try:
        uid = folder.stat().st_uid
        words = (folder / "cmdline").read_bytes().split(b"\0")
        command = b" ".join(words).strip() or (folder / "comm").read_bytes().strip()
    except OSError:  # it has ended, or /proc is mounted with hidepid
        return None
    return GpuProcess(pid, None, command.decode(errors="replace"), _user(uid))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
