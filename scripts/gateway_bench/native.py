"""The programs in C: made when they are needed, and asked for figures."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway_bench.bodies import Load, body
from gateway_bench.machine import pinned

_SOURCES = Path(__file__).parent / "native"
_OPTIONS = ("-O2", "-Wall", "-Wextra")
_GRACE_S = 60.0  # beyond what a run should take


class ToolFailed(Exception):
    """A program of ours did not do what it should; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where clients go: `address` as "unix:/path" or "host:port"."""

    address: str
    key: str = "none"
    path: str = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What clients saw of one run, and what the server's processes used meanwhile.

    `core_busy_s`: of the server's core, by whoever. Times in ms: `whole` until the answer's end,
    `first` until its first byte, from when the request was due.
    """

    seconds: float
    answers: int
    failed: int
    events: int
    frames: int
    cpu_s: float
    core_busy_s: float
    core_steal_s: float
    whole_ms: dict[str, float]
    first_ms: dict[str, float]
    complaint: str
    resident_bytes: int = 0

    @staticmethod
    def read(line: str, resident_bytes: int = 0) -> "Outcome":
        said: dict[str, Any] = json.loads(line)
        known = {name: said[name] for name in Outcome.__slots__ if name in said}
        return Outcome(**known, resident_bytes=resident_bytes)

    def count(self, is_stream: bool) -> int:
        """What is counted of this load: answers, or events of streams."""
        return self.events if is_stream else self.answers

    def rate(self, is_stream: bool) -> float:
        return self.count(is_stream) / self.seconds

    def per_cpu_s(self, is_stream: bool) -> float:
        return self.count(is_stream) / self.cpu_s if self.cpu_s else 0.0


def build(folder: Path) -> None:
    """Compile all programs into `folder`. ToolFailed without a compiler."""
    cc = shutil.which("cc")
    if cc is None:
        raise ToolFailed("there is no C compiler (cc): install gcc or clang")
    for source in sorted(_SOURCES.glob("*.c")):
        argv = [cc, *_OPTIONS, "-o", str(folder / source.stem), str(source), "-lm"]
        made = subprocess.run(argv, capture_output=True, text=True)
        if made.returncode:
            raise ToolFailed(f"{source.name} does not compile: {made.stderr[:500]}")


@dataclass(frozen=True, slots=True)
class Tools:
    """The compiled programs, and the core that they run on."""

    folder: Path
    core: int

    @contextlib.contextmanager
    def upstream(self, socket: Path) -> Iterator[int]:
        """The upstream, listening at `socket` and at the TCP port that is given."""
        argv = pinned([str(self.folder / "upstream"), str(socket), "0"], self.core)
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            try:
                word, _, port = process.stdout.readline().strip().partition(" ")
                if word != "ready":
                    raise ToolFailed("the upstream did not start")
                yield int(port)
            finally:
                process.kill()
                process.wait()

    def load(
        self, target: Target, load: Load, seconds: float, warm_s: float, server: "Server"
    ) -> Outcome:
        """Put load on a server. ToolFailed when the clients give up."""
        argv = [str(self.folder / "load"), target.address, target.path, target.key]
        argv += [str(self.body(load)), str(load.clients), str(warm_s), str(seconds)]
        argv += [str(load.rate), load.arrivals, str(server.core), server.listed]
        said = self._said(argv, seconds + warm_s)
        return Outcome.read(said)

    def readers(
        self, target: Target, load: Load, a_second: int, seconds: float, pace: tuple[int, int]
    ) -> "subprocess.Popen[str]":
        """Slow readers, started; `pace`: bytes at a time, and milliseconds between."""
        argv = [str(self.folder / "readers"), target.address, target.path, target.key]
        argv += [str(self.body(load)), str(load.clients), str(a_second), str(seconds)]
        argv += [str(number) for number in pace]
        return subprocess.Popen(pinned(argv, self.core), stdout=subprocess.PIPE, text=True)

    def body(self, load: Load) -> Path:
        path = self.folder / f"{load.body_name}.json"
        path.write_bytes(body(load))
        return path

    def _said(self, argv: Sequence[str], expected_s: float) -> str:
        try:
            done = subprocess.run(
                pinned(argv, self.core),
                capture_output=True,
                text=True,
                timeout=expected_s + _GRACE_S,
            )
        except subprocess.TimeoutExpired:
            raise ToolFailed(f"{argv[0]} did not come to an end") from None
        if done.returncode:
            raise ToolFailed(f"{Path(argv[0]).name}: {done.stderr.strip()[:300]}")
        return done.stdout


@dataclass(frozen=True, slots=True)
class Server:
    """The processes whose CPU time is counted, and their core; none of them: -1."""

    pids: tuple[int, ...] = ()
    core: int = -1

    @property
    def listed(self) -> str:
        return ",".join(str(pid) for pid in self.pids) or "-"
