import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from serve.cli.chat import Chat, first_ready
from serve.control import Status
from serve.errors import (
    BadRequest,
    ControlLost,
    InhouseError,
    ModelNotReady,
    ModelNotServed,
    ShuttingDown,
    Unauthorized,
)
from serve.fleet import ModelStatus


def event(content: str) -> str:
    return "data: " + json.dumps({"choices": [{"delta": {"content": content}}]}) + "\n\n"


ANSWER = event("") + event("Pa") + event("ris") + "data: [DONE]\n\n"


@contextmanager
def answering(status: int, body: str) -> Iterator[tuple[str, list[Any]]]:
    """A server that always says the same; its URL and the bodies that it was sent."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def test_turns_are_remembered() -> None:
    with answering(200, ANSWER) as (url, asked), Chat(url, "m", None) as chat:
        assert list(chat.say("Where?")) == ["Pa", "ris"]
        list(chat.say("Sure?"))
    assert [turn["content"] for turn in asked[1]["messages"]] == ["Where?", "Paris", "Sure?"]


def test_what_was_heard_of_a_stopped_answer_is_remembered() -> None:
    with answering(200, ANSWER) as (url, asked), Chat(url, "m", None) as chat:
        pieces = chat.say("Where?")
        next(pieces)
        pieces.close()
        list(chat.say("Go on"))
    assert [turn["content"] for turn in asked[1]["messages"]] == ["Where?", "Pa", "Go on"]


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (401, "no key", Unauthorized),
        (404, "no such model", ModelNotServed),
        (503, "the server is about to stop", ShuttingDown),
        (503, "starting", ModelNotReady),
        (400, "too long", BadRequest),
    ],
)
def test_refusals_become_our_errors(status: int, message: str, kind: type[InhouseError]) -> None:
    body = json.dumps({"error": {"message": message}})
    with answering(status, body) as (url, asked), Chat(url, "m", "k") as chat:
        with pytest.raises(kind):
            list(chat.say("Where?"))
        with pytest.raises(kind):
            list(chat.say("Again?"))
    assert len(asked[1]["messages"]) == 1, "a refused turn is forgotten"


def test_an_error_in_the_stream_is_raised() -> None:
    body = event("Pa") + 'data: {"error": {"message": "the engine went away"}}\n\n'
    lost = pytest.raises(ControlLost, match="the engine went away")
    with answering(200, body) as (url, _), Chat(url, "m", None) as chat, lost:
        list(chat.say("Where?"))


def test_the_first_that_is_ready_is_meant() -> None:
    starting, ready = ModelStatus("a", "starting", "a-0"), ModelStatus("b", "ready", "b-0")
    status = Status(1, "0", 0.0, "http://x", "r", "auto", models=(starting, ready))
    assert first_ready(status) == "b"
    with pytest.raises(ModelNotReady):
        first_ready(Status(1, "0", 0.0, "http://x", "r", "auto", models=(starting,)))
    with pytest.raises(ModelNotServed):
        first_ready(Status(1, "0", 0.0, "http://x", "r", "auto"))
