import json
import re
from pathlib import Path

import httpx
import pytest

from tests.fakes.vllm_words import ROUTES
from tests.gateway.stack import FakeEngine, Stack, running_engine, scripted_engine, until


def chat(engine: FakeEngine, **more: object) -> dict[str, object]:
    return {"model": engine.name, "messages": [{"role": "user", "content": "Hi"}]} | more


def direct(engine: FakeEngine, path: str, body: object) -> httpx.Response:
    transport = httpx.HTTPTransport(uds=str(engine.socket))
    with httpx.Client(transport=transport, base_url="http://engine") as client:
        return client.post(path, json=body)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_the_engines_byte_for_byte(
    stack: Stack, engine: FakeEngine, path: str, stream: bool
) -> None:
    body = chat(engine, stream=stream)
    theirs, ours = direct(engine, path, body), stack.post(body, path)
    assert ours.content == theirs.content
    assert (ours.status_code, ours.headers["content-type"]) == (200, theirs.headers["content-type"])
    assert ours.headers.get("content-length") == theirs.headers.get("content-length")


def test_the_engine_is_told_the_body_and_few_headers(stack: Stack, engine: FakeEngine) -> None:
    body = f'{{ "model":"{engine.name}", "odd": [1.0, 1e300, 9007199254740993], "x": null }}'
    headers = {
        "authorization": "Bearer secret",
        "cookie": "a=b",
        "x-request-id": "mine",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
    }
    answer = stack.client.post("/v1/messages?beta=true", content=body, headers=headers)
    assert answer.headers["x-request-id"] == "mine"
    last = engine.last()
    assert re.fullmatch("[0-9a-f]{12}-[0-9a-f]+", last["headers"].pop("x-request-id"))
    assert last["body"] == body and last["path"] == "/v1/messages"
    assert last["headers"] == {
        "host": "engine",
        "content-type": "application/json",
        "accept": "*/*",
        "anthropic-version": "2023-06-01",
        "content-length": str(len(body)),
    }


@pytest.mark.parametrize("own", ["", "x" * 129, "a b", "é", "a/b"])
def test_an_id_that_could_do_harm_is_not_given_back(
    stack: Stack, engine: FakeEngine, own: str
) -> None:
    headers = [(b"x-request-id", own.encode())]
    for path in ("/v1/chat/completions", "/health"):
        answer = stack.client.request(
            "GET" if path == "/health" else "POST", path, json=chat(engine), headers=headers
        )
        assert re.fullmatch("[0-9a-f]{12}-[0-9a-f]+", answer.headers["x-request-id"])


def test_answers_have_one_date_and_no_server(stack: Stack, engine: FakeEngine) -> None:
    answer = stack.post(chat(engine))
    assert len(answer.headers.get_list("date")) == 1 and answer.headers["date"] != "now"
    assert "server" not in answer.headers


def test_an_alias_becomes_the_name_and_nothing_else_changes(
    stack: Stack, engine: FakeEngine
) -> None:
    body = '{"messages":[{"model":"ORG/%s"}],  "model" : "ORG/%s","z":1}'
    alias, name = f"org/{engine.name}", engine.name
    answer = stack.client.post(
        "/v1/chat/completions", content=body.replace("ORG/%s", alias).encode()
    )
    assert answer.json()["model"] == name
    expected = body.replace("ORG/%s", alias, 1).replace("ORG/%s", name)
    assert engine.last()["body"] == expected


def test_an_engines_errors_pass_unchanged(stack: Stack) -> None:
    with stack.engine(max_model_len=4) as engine:
        body = {"model": engine.name, "prompt": "a b c d e f"}
        theirs, ours = direct(engine, "/v1/completions", body), stack.post(body, "/v1/completions")
    assert ours.status_code == 400 and ours.content == theirs.content
    assert "maximum context length is 4 tokens" in ours.text


def test_two_models_have_their_own_engines(stack: Stack, engine: FakeEngine) -> None:
    with stack.engine(fake_chunk_text=" Rome") as other:
        assert "Paris" in stack.post(chat(engine)).text
        assert "Rome" in stack.post(chat(other)).text


def test_replicas_share_the_requests(stack: Stack, tmp_path: Path, engine: FakeEngine) -> None:
    with running_engine(tmp_path / "second.sock", engine.name) as second:
        stack.serve(engine.name, engine.socket, second.socket)
        for _ in range(6):
            stack.post(chat(engine))
        received = [one.get("/fake/info").json()["received"] for one in (engine, second)]
    assert received == [3, 3]


def test_a_request_that_no_replica_takes_goes_to_the_next(
    stack: Stack, tmp_path: Path, engine: FakeEngine
) -> None:
    with running_engine(tmp_path / "dead.sock", engine.name) as dead:
        stack.serve(engine.name, dead.socket, engine.socket)
        dead.process.kill()
        dead.process.wait()
        for _ in range(4):
            assert stack.post(chat(engine)).status_code == 200


def test_a_model_without_any_engine_left_is_a_502(stack: Stack, engine: FakeEngine) -> None:
    engine.process.kill()
    engine.process.wait()
    answer = stack.post(chat(engine))
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "engine_gone"


def test_an_engine_that_dies_before_its_answer_is_a_502(stack: Stack) -> None:
    with stack.engine(fake_die_after_requests=1) as engine:
        answer = stack.post(chat(engine), "/v1/messages")
    assert answer.status_code == 502
    assert answer.json()["type"] == "error" and answer.json()["error"]["type"] == "api_error"


def test_a_poisonous_request_kills_one_engine_only(stack: Stack, tmp_path: Path) -> None:
    with (
        running_engine(tmp_path / "a.sock", "twin", fake_die_after_requests=1) as first,
        running_engine(tmp_path / "b.sock", "twin", fake_die_after_requests=1) as second,
    ):
        stack.serve("twin", first.socket, second.socket)
        assert stack.post({"model": "twin"}).status_code == 502
        until(lambda: (first.process.poll(), second.process.poll()) != (None, None))
        alive = [one for one in (first, second) if one.process.poll() is None]
        assert len(alive) == 1 and alive[0].get("/fake/info").json()["received"] == 0
        stack.forget("twin")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_an_engine_that_dies_in_a_stream_ends_it_with_an_error_event(
    stack: Stack, path: str
) -> None:
    with stack.engine(fake_chunks=50, fake_cut_after=3) as engine:
        answer = stack.post(chat(engine, stream=True), path)
    events = answer.text.strip().split("\n\n")
    *name, data = events[-1].split("\n")
    error = json.loads(data.removeprefix("data: "))["error"]
    assert "in the middle of its answer" in error["message"]
    assert name == (["event: error"] if path == "/v1/messages" else [])
    assert answer.text.count("Paris") == 3 and "[DONE]" not in answer.text


WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def test_an_answer_that_breaks_off_is_not_a_success(stack: Stack, tmp_path: Path) -> None:
    half = WHOLE.replace(b"length: 2", b"length: 20")
    with scripted_engine(tmp_path / "half.sock", (half,)):
        stack.serve("half", tmp_path / "half.sock")
        with pytest.raises(httpx.RemoteProtocolError):
            stack.post({"model": "half"})
    stack.forget("half")


def test_a_pooled_connection_that_died_is_replaced_once(stack: Stack, tmp_path: Path) -> None:
    with scripted_engine(tmp_path / "s.sock", (WHOLE, b""), (WHOLE, b""), (b"",)) as requests:
        stack.serve("stale", tmp_path / "s.sock")
        assert [stack.post({"model": "stale"}).status_code for _ in range(2)] == [200, 200]
        assert len(requests) == 3
        assert stack.post({"model": "stale"}).status_code == 502
        assert len(requests) == 5
    stack.forget("stale")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"nonsense\r\n\r\n"])
def test_a_fresh_connection_without_an_answer_is_a_502(
    stack: Stack, tmp_path: Path, answer: bytes
) -> None:
    with scripted_engine(tmp_path / "f.sock", (answer,)) as requests:
        stack.serve("fresh", tmp_path / "f.sock")
        body = {"model": "fresh", "seed": len(answer)}  # another each time: it is no poison
        assert stack.post(body).status_code == 502
    assert len(requests) == 1
    stack.forget("fresh")


@pytest.mark.parametrize("cut", [True, False])
def test_an_event_that_breaks_off_does_not_swallow_the_error(
    stack: Stack, tmp_path: Path, cut: bool
) -> None:
    part = b'data: {"a"' if cut else b"data: {}\n\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    with scripted_engine(tmp_path / "e.sock", (head + b"\r\n%x\r\n%b\r\n" % (len(part), part),)):
        stack.serve("event", tmp_path / "e.sock")
        events = stack.post({"model": "event"}).text.split("\n\n")
    assert len(events) == 3 and json.loads(events[1].removeprefix("data: "))["error"]
    stack.forget("event")
