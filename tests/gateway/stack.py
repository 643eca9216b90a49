"""A real gateway process, real fake engines, a fake control: what the gateway's tests run on."""

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from serve.quota import Key
from serve.roster import Replica, Roster, ServedModel
from tests.fakes.fake_control import FakeControl, running_control

FAKE_VLLM = Path(__file__).parents[1] / "fakes" / "fake_vllm.py"


@dataclass
class FakeEngine:
    name: str
    socket: Path
    process: subprocess.Popen[str]

    def get(self, path: str) -> httpx.Response:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(transport=transport, base_url="http://engine") as client:
            return client.get(path)

    def last(self) -> dict[str, Any]:
        """The last generation request that came: path, headers, body (text)."""
        record = self.get("/fake/last").json()
        assert isinstance(record, dict)
        return record

    def running(self) -> int:
        text = self.get("/metrics").text
        line = next(row for row in text.splitlines() if row.startswith("vllm:num_requests_running"))
        return int(float(line.split()[-1]))


@contextlib.contextmanager
def running_engine(path: Path, name: str, **knobs: object) -> Iterator[FakeEngine]:
    """A fake vLLM at the socket `path`, ready."""
    command = [sys.executable, str(FAKE_VLLM), "--uds", str(path), "--served-model-name", name]
    for knob, value in knobs.items():
        command += [f"--{knob.replace('_', '-')}", str(value)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        while "startup complete" not in (line := process.stderr.readline()):
            assert line, "the fake engine did not start"
        try:
            yield FakeEngine(name, path, process)
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def scripted_engine(path: Path, *connections: tuple[bytes, ...]) -> Iterator[list[bytes]]:
    """An engine that answers each connection's requests with given bytes and closes it then.

    An empty answer only closes. Yields the list of requests that have come in.
    """
    requests: list[bytes] = []

    def play() -> None:
        for answers in connections:
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                for answer in answers:
                    requests.append(connection.recv(65536))
                    connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        yield requests
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@dataclass
class Stack:
    """A gateway, and the roster that it follows."""

    folder: Path
    control: FakeControl
    process: subprocess.Popen[bytes]
    url: str
    client: httpx.Client
    count: int = 0
    models: dict[str, ServedModel] = field(default_factory=dict)
    keys: tuple[Key, ...] = ()  # none: the gateway is open
    headers: dict[str, str] = field(default_factory=dict)  # that `post` sends

    @contextlib.contextmanager
    def engine(self, **knobs: object) -> Iterator[FakeEngine]:
        """A new model with one engine, served under its name and the alias `org/NAME`."""
        self.count += 1
        name = f"model-{self.count}"
        with running_engine(self.folder / f"{self.count}.sock", name, **knobs) as engine:
            self.serve(name, engine.socket)
            yield engine
        if self.process.poll() is None:
            self.forget(name)

    def serve(self, name: str, *sockets: Path, **terms: Any) -> None:
        """A model with engines at these sockets; `terms`: what else `ServedModel` has."""
        replicas = tuple(
            Replica(f"{name}-{number}", f"unix:{socket}") for number, socket in enumerate(sockets)
        )
        self.serve_at(name, *replicas, **terms)

    def serve_at(self, name: str, *replicas: Replica, **terms: Any) -> None:
        """A model with these replicas."""
        state = "ready" if replicas else "starting"
        model = ServedModel(name, (f"org/{name}",), state, 4096, 7, replicas)  # type: ignore[arg-type]
        self.models[name] = dataclasses.replace(model, **terms)
        self.publish(self.roster())

    def forget(self, name: str) -> None:
        del self.models[name]
        self.publish(self.roster())

    def roster(self) -> Roster:
        models = tuple(self.models.values())
        return Roster(self.count, models, self.keys, is_open=not self.keys)

    def publish(self, roster: Roster) -> None:
        """Returns when the gateway has it."""
        self.control.publish(roster)
        wanted = {model.name: model.state for model in roster.models}
        until(lambda: self.states() == (wanted, roster.is_draining))

    def states(self) -> tuple[dict[str, str], bool]:
        record = self.client.get("/ready").json()
        return record["models"], record["draining"]

    def post(self, body: object, path: str = "/v1/chat/completions") -> httpx.Response:
        return self.client.post(path, json=body, headers=self.headers)

    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port


@contextlib.contextmanager
def running_gateway(folder: Path, roster: Roster, **more: object) -> Iterator[Stack]:
    """A gateway that follows `roster`, ready; `more`: entries of its configuration."""
    with running_control(folder / "control.sock", roster) as control:
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
            url = "http://{}:{}".format(*listener.getsockname())
            told = {"fd": listener.fileno(), "control": str(control.socket), "drain_s": 5} | more
            process = subprocess.Popen(
                [sys.executable, "-m", "serve.gateway", json.dumps(told)],
                pass_fds=(listener.fileno(),),
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        try:
            with httpx.Client(base_url=url, timeout=30) as client:
                assert client.get("/health").status_code == 200
                yield Stack(folder, control, process, url, client)
        finally:
            process.kill()
            process.wait()


def until(condition: Callable[[], object], timeout_s: float = 5) -> float:
    """Wait until something outside this process has come true; the seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "it did not come true in time"
        time.sleep(0.005)
    return time.monotonic() - started
