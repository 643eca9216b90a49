"""Spawning, signalling and reaping: the only home of child processes in the launcher."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from serve.errors import NotWritable
from serve.shipped import shipped


class Child:
    """A process of ours in a session of its own, watched from the moment it starts.

    It is reaped by whoever is first, then everybody who waits is told. Needs a running event loop.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        env: Mapping[str, str],
        log_path: Path,
        *,
        stdin: bytes = b"",
        pass_fds: Sequence[int] = (),
        dies_with_us: bool = False,
    ) -> "Child":
        """Start `argv` with `stdin` to read; what it says is appended to `log_path` (0600).

        `dies_with_us`: the kernel kills it when the thread that calls this ends, however that is.
        Raises NotWritable when the log or the program cannot be opened.
        """
        if dies_with_us:
            leash = str(shipped("inside/leash.py"))
            argv = [sys.executable, "-I", "-S", leash, str(os.getpid()), *argv]
        try:
            with open(log_path, "ab", opener=_private) as log, _readable(stdin) as source:
                process = subprocess.Popen(
                    argv,
                    env=env,
                    stdin=source,
                    stdout=log,
                    stderr=log,
                    pass_fds=pass_fds,
                    start_new_session=True,
                )
        except OSError as error:
            raise NotWritable(str(error.filename or log_path), error.strerror or "") from error
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """The exit code; -9 for a process that SIGKILL ended."""
        return await asyncio.shield(self._exit_code)

    def signal(self, signum: int) -> None:
        """Send to the whole group; nothing happens when it is gone already."""
        if not self._exit_code.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signum)

    async def stop(self, grace_s: float) -> int:
        """SIGTERM, and SIGKILL to the group when it is still there after `grace_s`."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self.wait(), grace_s)
        self.signal(signal.SIGKILL)
        return await self.wait()

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._exit_code.set_result(self._process.wait())


class Watched:
    """A process that need not be our child; held by a pidfd, so never mistaken for another."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError."""
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._see)

    async def gone(self) -> None:
        """Return when it has ended; for PID 1 of a namespace: when all in there have ended."""
        await self._gone.wait()

    def kill(self) -> None:
        if not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Look away; whoever waits is not told any more."""
        if not self._gone.is_set():
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)

    def _see(self) -> None:
        self.close()
        self._gone.set()


def run(
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    on_line: Callable[[str], None] = lambda line: None,
) -> tuple[int, str]:
    """Run a short child to its end, in the calling thread: its exit code and all it said.

    stdout and stderr are one; `on_line` gets every line as it comes. A program that cannot be
    started counts as exit code 127. The child is killed when `on_line` raises.
    """
    lines: list[str] = []
    try:
        with _readable(stdin) as source:
            process = subprocess.Popen(
                argv,
                env=env,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
    except OSError as error:
        return 127, str(error)
    with process:
        try:
            for line in process.stdout or ():
                lines.append(line)
                on_line(line.rstrip("\n"))
        except BaseException:
            process.kill()
            raise
    return process.returncode, "".join(lines)


def _readable(content: bytes) -> BinaryIO:
    """A nameless file in memory: a pipe would have to be fed."""
    file = os.fdopen(os.memfd_create("stdin"), "r+b")
    file.write(content)
    file.seek(0)
    return file


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
