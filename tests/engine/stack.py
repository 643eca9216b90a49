"""The whole of Inhouse as a user runs it: `inhouse serve` in a process of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from serve.control import Client, Status
from serve.fleet import ModelStatus

STARTER = "smollm2-135m-instruct"


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """The first true value of `condition`, polled every 50 ms; AssertionError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet is not alive."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


class Stack:
    """A supervisor, its gateway and an engine that serves the starter; `flags` of `inhouse serve`.

    Nothing is compiled in the background (`test_compiled.py` does): promises about seconds are
    tested on a machine that has nothing else to do.
    """

    def __init__(self, home: Path, run: Path, *flags: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.run = run
        self.log = run / "serve.log"
        self._argv = [sys.executable, "-m", "serve", "serve", STARTER, "--compile", "off"]
        self._argv += ["--port", str(self.port), *flags]
        self._env = os.environ | {"INHOUSE_HOME": str(home), "INHOUSE_RUN": str(run)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 240) -> Self:
        """Start the supervisor and wait until its models are ready."""
        self.run.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._argv, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_until(self._is_ready, timeout_s, f"the stack is ready: {self.log}")
        return self

    def stop(self) -> int:
        """Ctrl-C; the exit code. Everything is gone when this returns."""
        assert self.process is not None
        pids = self.pids()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(60)
        wait_until(lambda: not any(map(is_alive, pids)), 5, f"all of {pids} are gone")
        return code

    def pids(self) -> list[int]:
        """The supervisor and everything below it, as seen from outside all namespaces."""
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            return [root.pid, *(child.pid for child in root.children(recursive=True))]
        return []

    def status(self) -> Status:
        """What `inhouse ps` shows."""
        return Client(self.run / "control.sock").status()

    def model(self) -> ModelStatus:
        """The only model's status."""
        (model,) = self.status().models
        return model

    def engine_process(self, role: str) -> psutil.Process:
        """`role`: "guard", "api" (vLLM's API server), "VLLM::EngineCore" or "VLLM::Worker"."""
        guard = psutil.Process(self.model().pid)
        if role == "guard":
            return guard
        below = guard.children(recursive=True)
        if role == "api":
            cores = [p for p in below if "VLLM::" in " ".join(p.cmdline())]
            return next(p for p in cores[0].parents() if p not in cores)
        return next(p for p in below if role in " ".join(p.cmdline()))

    def engine(self) -> httpx.Client:
        """A client straight at the engine's socket, past the gateway."""
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=self.model().socket),
            base_url="http://engine",
            timeout=60,
        )

    def ask(self, prompt: str = "Say hello.", **more: Any) -> httpx.Response:
        """One chat completion through the gateway."""
        body = {"model": STARTER, "messages": [{"role": "user", "content": prompt}]}
        body |= {"max_tokens": 8, "temperature": 0} | more
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=120)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/ready", timeout=5).status_code == 200
        return False


@contextlib.contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Start, and make sure of the end."""
    try:
        yield stack.start()
    finally:
        if stack.process is not None:
            left = stack.pids()
            if stack.process.poll() is None:
                stack.stop()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
