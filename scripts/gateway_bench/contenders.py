"""Who is measured: nobody at all, Inhouse, and the peers; each up, tried out, and asleep."""

import contextlib
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gateway_bench import inhouse, peers
from gateway_bench.bodies import Load, body
from gateway_bench.machine import (
    MIB,
    Cores,
    free_port,
    is_running,
    last_lines,
    resident_bytes,
    running,
    tree,
)  # fmt: skip
from gateway_bench.native import Outcome, Server, Target, ToolFailed, Tools

STRAIGHT, INHOUSE, OTHER, OVER_TCP = "straight", "inhouse", "inhouse-other", "inhouse-tcp"
LITELLM, ROUTER = "litellm", "vllm-router"
NAMES = (STRAIGHT, INHOUSE, LITELLM, ROUTER, OVER_TCP, OTHER)
_READY_S = 90.0
_SETTLED_S, _LOOK_S, _QUIET_LOOKS = 20.0, 0.03, 6


@dataclass(frozen=True, slots=True)
class Plan:
    """What contenders are made of. `other`: a folder with another `serve/`."""

    tools: Tools
    cores: Cores
    folder: Path
    cache: Path
    upstream_socket: Path
    upstream_port: int
    other: Path | None = None

    def below(self, name: str) -> "Plan":
        """The same in a folder of its own, so that a contender can be started once more."""
        folder = self.folder / name
        folder.mkdir()
        return replace(self, folder=folder)

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}"


@dataclass(frozen=True, slots=True)
class Contender:
    """One server. `pid` 0: there is none, clients go straight to the upstream."""

    name: str
    target: Target
    pid: int = 0
    gateway: inhouse.Gateway | None = None

    def measure(self, plan: Plan, load: Load, seconds: float, warm_s: float) -> Outcome:
        """One run, for which alone the server is awake."""
        with self.awake():
            pids = tuple(process.pid for process in tree(self.pid)) if self.pid else ()
            outcome = plan.tools.load(
                self.target, load, seconds, warm_s, Server(pids, plan.cores.server)
            )
            return replace(outcome, resident_bytes=resident_bytes(self.pid) if self.pid else 0)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._settle()
            self.sleep()

    def sleep(self) -> None:
        self._signal(signal.SIGSTOP)

    def _settle(self) -> None:
        """Until what clients have left behind is worked off: no run inherits it."""
        ends_at = time.monotonic() + _SETTLED_S
        quiet = 0
        while self.pid and quiet < _QUIET_LOOKS and time.monotonic() < ends_at:
            time.sleep(_LOOK_S)
            quiet = 0 if is_running(self.pid) else quiet + 1

    def _signal(self, number: signal.Signals) -> None:
        if self.pid:
            os.killpg(self.pid, number)


@contextlib.contextmanager
def started(plan: Plan, name: str) -> Iterator[Contender]:
    """A contender that has answered as it should, a stream too. ToolFailed says why not."""
    if name == STRAIGHT:
        yield Contender(name, Target(f"127.0.0.1:{plan.upstream_port}"))
        return
    with _starters(plan)[name]() as contender:
        try:
            until_ready(contender)
        except ToolFailed as error:
            raise ToolFailed(f"{error}; its log: {last_lines(_log(plan, name))}") from error
        yield contender


def _starters(plan: Plan) -> dict[str, Callable[[], AbstractContextManager[Contender]]]:
    unix, tcp = f"unix:{plan.upstream_socket}", plan.upstream_url
    return {
        INHOUSE: partial(_inhouse, plan, INHOUSE, unix, None),
        OVER_TCP: partial(_inhouse, plan, OVER_TCP, tcp, None),
        OTHER: partial(_inhouse, plan, OTHER, unix, plan.other),
        LITELLM: partial(_litellm, plan),
        ROUTER: partial(_router, plan),
    }


def _log(plan: Plan, name: str) -> Path:
    return plan.folder / name / "log.txt"


@contextlib.contextmanager
def _inhouse(plan: Plan, name: str, address: str, source: Path | None) -> Iterator[Contender]:
    told = inhouse.roster("bench", [address, address])
    with inhouse.running_gateway(plan.folder / name, plan.cores.server, told, source) as gateway:
        target = Target(f"127.0.0.1:{gateway.port}", inhouse.KEY)
        yield Contender(name, target, gateway.process.pid, gateway)


@contextlib.contextmanager
def _litellm(plan: Plan) -> Iterator[Contender]:
    programs = peers.environment(plan.cache, LITELLM)
    _log(plan, LITELLM).parent.mkdir()
    port = free_port()
    argv = peers.litellm(programs, plan.folder / LITELLM, port, plan.upstream_url)
    env = peers.quiet_environment(programs)
    with running(argv, plan.cores.server, _log(plan, LITELLM), env) as process:
        yield Contender(LITELLM, Target(f"127.0.0.1:{port}", peers.LITELLM_KEY), process.pid)


@contextlib.contextmanager
def _router(plan: Plan) -> Iterator[Contender]:
    programs = peers.environment(plan.cache, ROUTER)
    _log(plan, ROUTER).parent.mkdir()
    port = free_port()
    argv = peers.vllm_router(programs, port, free_port(), plan.upstream_url)
    env = peers.quiet_environment(programs)
    with running(argv, plan.cores.server, _log(plan, ROUTER), env) as process:
        yield Contender(ROUTER, Target(f"127.0.0.1:{port}"), process.pid)


def until_ready(contender: Contender) -> None:
    ends_at = time.monotonic() + _READY_S
    while True:
        problem = _try_out(contender.target)
        if problem is None:
            return
        if time.monotonic() > ends_at or not tree(contender.pid):
            raise ToolFailed(f"{contender.name} does not answer as it should: {problem}")
        time.sleep(0.25)


def _try_out(target: Target) -> str | None:
    """What is wrong with the answers of a server; None: nothing."""
    try:
        status, said = ask(target, Load(1))
        if status != 200 or "usage" not in json.loads(said):
            return f"{status} {said[:200]!r}"
        status, said = ask(target, Load(1, events=5))
        if status != 200 or said.count(b'"token"') + said.count(b'" token"') != 5:
            return f"a stream: {status} {said[-300:]!r}"
        return None if b"[DONE]" in said else "a stream without [DONE]"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return repr(error)


def seen(contender: Contender) -> list[str]:
    """What of Inhouse's gateway is on, as it can be seen from outside."""
    status, _, _ = _answer(contender.target, Load(1), "no key")
    _, _, headers = _answer(contender.target, Load(1), contender.target.key)
    is_limited = any(name.startswith("x-ratelimit-") for name in headers)
    journal = contender.gateway.journal_bytes() if contender.gateway else 0
    return [
        f"without a key {status}",
        "answers name the limits" if is_limited else "no limits named in answers",
        f"journal {journal / MIB:.1f} MiB on the disk" if journal else "no journal on the disk",
    ]


def ask(target: Target, load: Load) -> tuple[int, bytes]:
    """One request, as the clients send it; the status and the body of the answer."""
    status, said, _ = _answer(target, load, target.key)
    return status, said


def _answer(target: Target, load: Load, key: str) -> tuple[int, bytes, dict[str, str]]:
    host, _, port = target.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with contextlib.closing(connection):
        connection.request("POST", target.path, body(load), headers)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, answer.read(), headers
