"""A deed in a process of its own, with what is to happen to it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.scenes import Scene

ROOT = Path(__file__).parents[2]
CHANGES = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat2", "link", "linkat",
    "symlink", "unlink", "unlinkat", "mkdir", "rmdir", "ftruncate", "utimensat", "fallocate",
)  # fmt: skip


class CannotTrace(Exception):
    """The OS lets nobody be traced."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to a process: at this event it ends or its disk is full, or after this time it
    ends, or what strace does with these options."""

    kill_at: int = 0
    fill_at: int = 0
    after_s: float | None = None
    strace: tuple[str, ...] = ()


@contextmanager
def started(on: Scene, where: Path, deed: str, fate: Fate) -> "Iterator[subprocess.Popen[str]]":
    """The process when it begins to work."""
    argv = [sys.executable, "-m", "tests.campaigns.deeds", deed, str(where), on.endpoint]
    with subprocess.Popen(
        [*argv, f"{fate.kill_at}", f"{fate.fill_at}"], cwd=ROOT, text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdout.readline()
            with _traced(process.pid, fate.strace):
                process.stdin.write("go\n")
                yield process
        finally:
            process.kill()


@contextmanager
def _traced(pid: int, options: tuple[str, ...]) -> Iterator[None]:
    """Under strace, if there are options for it; and ended with the process."""
    if not options:
        yield
        return
    argv = ["strace", "-f", "-p", str(pid), *options]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        if b"attached" not in (said := strace.stderr.readline()):
            raise CannotTrace(said.decode())
        yield
        strace.stderr.read()


def calls_of(on: Scene, where: Path, deed: str) -> Mapping[str, int]:
    """The calls that change the disk, with how often the busiest thread makes each."""
    if shutil.which("strace") is None:
        return {}
    on.prepare(where, deed)
    log = where.with_suffix(".strace")
    options = ("-e", f"trace={','.join(CHANGES)}", "-o", str(log))
    try:
        with started(on, where, deed, Fate(strace=options)) as process:
            process.communicate(timeout=120)
    except CannotTrace:
        return {}
    finally:
        shutil.rmtree(where)
    found: dict[tuple[str, str], int] = {}
    for line in log.read_text().splitlines():
        if match := re.match(r"(\d+) +(\w+)\(", line):
            found[match[1], match[2]] = found.get((match[1], match[2]), 0) + 1
    return {
        name: max(times for (_, one), times in found.items() if one == name)
        for name in sorted({name for _, name in found})
    }
