"""Requests that wait: for their model, their turn, the first token; and who goes meanwhile."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.roster import Replica, Roster
from tests.gateway.stack import FakeEngine, Stack, running_engine, running_gateway, until
from tests.gateway.test_lifecycle import open_request

WAITING = ": waiting\n\n"


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway whose requests wait, and say so soon."""
    wish = {"wait_s": 10, "first_comment_s": 0.05, "next_comment_s": 0.05}
    with running_gateway(tmp_path_factory.mktemp("patient"), Roster(), **wish) as stack:
        yield stack


class Asking:
    """A request in a thread of its own; what comes of it is kept."""

    def __init__(
        self, stack: Stack, body: dict[str, Any], path: str = "/v1/chat/completions"
    ) -> None:
        self.text = ""
        self.status = 0
        self._stack, self._body, self._path = stack, body, path
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        with (
            httpx.Client(base_url=self._stack.url, timeout=30) as client,
            client.stream("POST", self._path, json=self._body) as answer,
        ):
            self.status = answer.status_code
            for piece in answer.iter_text():
                self.text += piece

    def done(self) -> "Asking":
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_stream_is_kept_alive_while_its_model_loads(
    patient: Stack, tmp_path: Path, path: str
) -> None:
    patient.serve("slow")
    stream, whole = (
        Asking(patient, {"model": "slow", "stream": True}, path),
        Asking(patient, {"model": "slow"}, path),
    )
    until(lambda: stream.text.count(WAITING) >= 3)
    assert (stream.status, whole.status) == (200, 0)
    with running_engine(tmp_path / "s.sock", "slow") as engine:
        patient.serve("slow", engine.socket)
        stream.done(), whole.done()
        theirs = Asking(patient, {"model": "slow", "stream": True}, path).done().text
        patient.forget("slow")
    assert stream.text.replace(WAITING, "") == theirs.replace(WAITING, "") and "Paris" in theirs
    assert whole.status == 200 and WAITING not in whole.text


def test_a_wait_for_a_model_has_an_end(tmp_path: Path) -> None:
    wish = {"wait_s": 0.2, "first_comment_s": 0.05, "next_comment_s": 0.05}
    with running_gateway(tmp_path, Roster(), **wish) as stack:
        stack.serve("never")
        assert stack.post({"model": "never"}).status_code == 503
        for path, name in (("/v1/chat/completions", ""), ("/v1/messages", "event: error\n")):
            stream = Asking(stack, {"model": "never", "stream": True}, path).done()
            assert stream.status == 200 and stream.text.startswith(WAITING)
            event = stream.text.replace(WAITING, "")
            assert event.startswith(name + "data: ") and event.endswith("\n\n")
            error = json.loads(event.removeprefix(name + "data: "))["error"]
            assert "not ready yet" in error["message"]
        stack.serve("broken", state="quarantined")
        assert stack.post({"model": "broken"}).status_code == 503


def test_a_stream_is_kept_alive_until_its_first_event_and_no_longer(patient: Stack) -> None:
    for knobs in ({"fake_stall_s": 0.5}, {"fake_head_s": 0.5}):
        with patient.engine(fake_rate=10, fake_chunks=4, **knobs) as engine:
            text = Asking(patient, {"model": engine.name, "stream": True}).done().text
        before, _, after = text.partition("data: ")
        assert before.count(WAITING) >= 2 and before.replace(WAITING, "") == ""
        assert WAITING not in after and after.count("Paris") == 4


def test_an_engines_refusal_after_a_comment_becomes_an_event(patient: Stack) -> None:
    patient.serve("late")
    waiting = [
        Asking(patient, {"model": "late", "stream": True}, path)
        for path in ("/v1/chat/completions", "/v1/messages")
    ]
    until(lambda: all(WAITING in each.text for each in waiting))
    with patient.engine(fake_error=500) as engine:
        patient.serve_at("late", Replica("late-0", f"unix:{engine.socket}"), upstream=engine.name)
        for each, name in zip(waiting, ("", "event: error\n"), strict=True):
            event = each.done().text.replace(WAITING, "")
            error = json.loads(event.removeprefix(name + "data: "))["error"]
            assert error["message"] == "the fake was told to fail"
        patient.forget("late")


def queue(patient: Stack, engine: FakeEngine) -> None:
    """The engine works on one request at a time, and the rest waits for its turn."""
    replica = Replica(f"{engine.name}-0", f"unix:{engine.socket}", slots=1)
    patient.serve_at(engine.name, replica)


def test_who_waits_for_a_turn_gets_it_when_the_one_before_is_over(patient: Stack) -> None:
    with patient.engine(fake_chunks=3, fake_rate=10) as engine:
        queue(patient, engine)
        body = {"model": engine.name, "stream": True}
        asking = [Asking(patient, body) for _ in range(4)]
        most = 0
        while not all(each.text.endswith("[DONE]\n\n") for each in asking):
            most = max(most, engine.running())
        assert most == 1 and [each.done().status for each in asking] == [200] * 4
        assert sum(WAITING in each.text for each in asking) >= 2


def test_who_leaves_the_queue_takes_no_turn(patient: Stack) -> None:
    with patient.engine(fake_stall_s=0.5) as engine:
        queue(patient, engine)
        first = Asking(patient, {"model": engine.name})
        until(lambda: engine.running() == 1)
        for stream in (b"true", b"false"):
            body = b'{"model":"%b","stream":%b,"x":1}' % (engine.name.encode(), stream)
            with open_request(patient, body):
                until(lambda: waiting(patient, engine) == 1)
            until(lambda: waiting(patient, engine) == 0)
        last = Asking(patient, {"model": engine.name})
        assert (first.done().status, last.done().status) == (200, 200)
        assert engine.get("/fake/info").json()["received"] == 2


def test_who_leaves_while_a_model_loads_is_forgotten(patient: Stack, tmp_path: Path) -> None:
    patient.serve("gone")
    with open_request(patient, b'{"model":"gone","stream":true}') as connection:
        assert b"waiting" in connection.recv(4096)
    with running_engine(tmp_path / "g.sock", "gone") as engine:
        patient.serve("gone", engine.socket)
        assert patient.post({"model": "gone"}).status_code == 200
        assert engine.get("/fake/info").json()["received"] == 1
        patient.forget("gone")


def waiting(stack: Stack, engine: FakeEngine) -> int:
    for line in stack.client.get("/metrics").text.splitlines():
        if line.startswith("inhouse_requests_waiting{") and f'"{engine.name}"' in line:
            return int(float(line.split()[-1]))
    return 0
