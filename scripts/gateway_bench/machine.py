"""The machine that is measured on: cores, versions, and processes that are held to one core."""

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

MIB = 2**20
_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Cores:
    """`server`: of the server under test, alone. `clients`: of clients, upstream and ourselves."""

    server: int
    clients: int

    @staticmethod
    def choose(server: int | None, clients: int | None) -> "Cores":
        """The last core for the server and the first for all others, if nobody says otherwise."""
        usable = sorted(os.sched_getaffinity(0))
        return Cores(
            usable[-1] if server is None else server, usable[0] if clients is None else clients
        )


def pinned(argv: Sequence[str], core: int | None) -> list[str]:
    """The command, held to one core; None: let go, though we are held ourselves."""
    cores = f"0-{(os.cpu_count() or 1) - 1}" if core is None else str(core)
    return ["taskset", "-c", cores, *argv]


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    core: int | None,
    log: Path,
    env: Mapping[str, str],
    fds: Sequence[int] = (),
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of a group of its own, which is ended with the block, even if it is stopped."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            pinned(argv, core), stdout=file, stderr=file, env=dict(env), pass_fds=fds,
            start_new_session=True, cwd=log.parent,
        )  # fmt: skip
    try:
        yield process
    finally:
        for number in (signal.SIGCONT, signal.SIGTERM):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        if root.status() != psutil.STATUS_ZOMBIE:
            return [root, *root.children(recursive=True)]
    return []


def is_running(pid: int) -> bool:
    """Whether any thread of the process and of those below it runs, or waits for its core."""
    for process in tree(pid):
        for stat in Path(f"/proc/{process.pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                if stat.read_text().rpartition(")")[2].split()[0] == "R":
                    return True
    return False


def resident_bytes(pid: int) -> int:
    """Resident memory of the process and all below it."""
    sizes = 0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes += process.memory_info().rss
    return sizes


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def last_lines(log: Path, count: int = 3) -> str:
    """The end of a log, for a reason."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return " / ".join([line.strip()[:200] for line in lines if line.strip()][-count:])


def describe(cores: Cores) -> list[str]:
    """Lines on the machine and on what of ours runs on it."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = psutil.virtual_memory().total / 2**30
    libraries = ("uvicorn", "uvloop", "httptools", "msgspec")
    return [
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}; "
        f"server on core {cores.server}, clients and upstream on core {cores.clients}.",
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in libraries)
        + f"; {compiler()}.",
    ]


def compiler() -> str:
    cc = shutil.which("cc")
    if cc is None:
        return "no C compiler"
    said = subprocess.run([cc, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.splitlines()[0]


def load_average() -> str:
    return " ".join(f"{load:.1f}" for load in os.getloadavg())
