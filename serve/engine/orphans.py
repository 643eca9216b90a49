"""Processes of engines whose guard is gone, found by proof; and who else is on the cards.

Namespaces leave none behind, nor does a guard that ends by itself. Without a PID namespace, a kill
of both processes of a guard at once can leave what an engine has started, with all its memory.

The proof that a process is of an engine of ours: it is our user's, and either its environment names
one of our engines' folders, or all that it says goes into the log of one (vLLM's children write
their titles over their environment). Who has a guard above is not an orphan.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from serve.engine.guarding import engines_folder
from serve.engine.process import Watched
from serve.hardware import Gpu
from serve.units import show_bytes

# Names an engine's folder to all that it starts.
MARKER = "INHOUSE_ENGINE"

# As `EnginePool` calls logs: `host-1a2b3c4d.log`, `model-0@20261122-014210-1a2b3c4d.log`.
_LOG = re.compile(r"(?:host|.+@\d{8}-\d{6})-[0-9a-f]{8}\.log")
_DELETED = " (deleted)"
_GUARD = b"guard.py"
_PATIENCE_S = 5.0
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Home:
    """Where engines of ours live: what proves that a process is of one. Resolved paths."""

    run_dir: Path
    log_dir: Path


@dataclass(frozen=True, slots=True)
class Orphan:
    """A process of an engine of ours that nobody guards. `rss_bytes`: of the machine's memory."""

    pid: int
    command: str
    rss_bytes: int


def find_orphans(home: Home, proc: Path = _PROC) -> tuple[Orphan, ...]:
    """Those that there are now. Reads `/proc` once, a few milliseconds."""
    return tuple(
        Orphan(pid, _command(proc / str(pid)), _rss_bytes(proc / str(pid)))
        for pid in _pids(proc)
        if _is_orphan(pid, home, proc)
    )


async def end_orphans(home: Home) -> tuple[Orphan, ...]:
    """Kill them, wait until they are gone, and say who they were."""
    orphans = await asyncio.to_thread(find_orphans, home)
    return tuple([orphan for orphan in orphans if await _end(orphan, home)])


def is_ours(pid: int, home: Home, proc: Path = _PROC) -> bool:
    """Is this a process of an engine of ours, or its guard?"""
    place = proc / str(pid)
    return _uid(place) == os.geteuid() and (
        _names_folder(place, engines_folder(home.run_dir)) or _speaks_to_log(place, home.log_dir)
    )


def strangers(gpus: Iterable[Gpu], home: Home) -> tuple[str, ...]:
    """Who else holds memory of these cards, one sentence each: nothing of theirs is touched."""
    return tuple(
        f"GPU {gpu.index}: process {process.pid} "
        f"({_who(process.user, process.command, process.used_bytes)})"
        for gpu in gpus
        for process in gpu.processes
        if not is_ours(process.pid, home)
    )


def _who(user: str | None, command: str | None, used_bytes: int | None) -> str:
    used = "unknown memory" if used_bytes is None else show_bytes(used_bytes)
    return ", ".join((user or "unknown user", (command or "unknown command")[:80], used))


async def _end(orphan: Orphan, home: Home) -> bool:
    """Held by its pidfd before it is looked at again: never mistaken for another."""
    try:
        process = Watched(orphan.pid)
    except ProcessLookupError:
        return False
    if not _is_orphan(orphan.pid, home, _PROC):
        process.close()
        return False
    process.kill()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.gone(), _PATIENCE_S)
    process.close()
    return True


def _is_orphan(pid: int, home: Home, proc: Path) -> bool:
    """Not below a guard, nor below us: what we start is a guard a moment later."""
    return is_ours(pid, home, proc) and not any(
        above == os.getpid() or _GUARD in _read(proc / str(above) / "cmdline")
        for above in _line_above(pid, proc)
    )


def _line_above(pid: int, proc: Path) -> Iterator[int]:
    """Itself, its parent, and so on."""
    seen: set[int] = set()
    while pid > 0 and pid not in seen:
        seen.add(pid)
        yield pid
        fields = _read(proc / str(pid) / "stat").rpartition(b")")[2].split()
        pid = int(fields[1]) if len(fields) > 1 else 0


def _names_folder(place: Path, engines: Path) -> bool:
    return any(
        Path(os.fsdecode(value)).parent.resolve() == engines
        for entry in _read(place / "environ").split(b"\0")
        for name, _, value in (entry.partition(b"="),)
        if name == MARKER.encode()
    )


def _speaks_to_log(place: Path, log_dir: Path) -> bool:
    targets = {_link(place / "fd" / number) for number in ("1", "2")}
    target = targets.pop()
    if targets or target is None:
        return False
    log = Path(target.removesuffix(_DELETED))
    return log.parent == log_dir and _LOG.fullmatch(log.name) is not None


def _pids(proc: Path) -> list[int]:
    return sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def _uid(place: Path) -> int | None:
    """The real one; the owner of the folder in /proc is root for who may not be debugged."""
    status = _status(place)
    return int(status["Uid"].split()[0]) if "Uid" in status else None


def _rss_bytes(place: Path) -> int:
    return int(_status(place).get("VmRSS", "0").split()[0]) * 1024


def _status(place: Path) -> Mapping[str, str]:
    lines = _read(place / "status").decode(errors="replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines) if value}


def _command(place: Path) -> str:
    words = _read(place / "cmdline").replace(b"\0", b" ").strip()
    return words.decode(errors="replace")[:200] or "unknown"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it is gone, or not ours to look at
        return b""


def _link(path: Path) -> str | None:
    try:
        return os.fspath(path.readlink())
    except OSError:
        return None
