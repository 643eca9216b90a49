"""Ollama's API on a real gateway: its own Python client, and the bytes themselves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from serve.quota import Key, digest_key
from serve.roster import Replica, Roster, ServedModel
from tests.gateway.stack import FakeEngine, Stack, running_gateway, scripted_engine, until

HI: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def client(stack: Stack) -> Iterator[ollama.Client]:
    client = ollama.Client(host=stack.url)
    yield client
    client._client.close()


def test_chat_whole_and_streaming(client: ollama.Client, engine: FakeEngine) -> None:
    whole = client.chat(f"{engine.name}:latest", HI, options={"num_predict": 5})
    assert whole.message.content == " ".join(["Paris"] * 5)
    assert whole.done and whole.done_reason == "stop" and whole.eval_count == 5
    pieces = list(client.chat(f"org/{engine.name}", HI, stream=True))
    text = "".join(piece.message.content or "" for piece in pieces)
    assert text.strip() == " ".join(["Paris"] * 8)
    assert [piece.done for piece in pieces] == [False] * 8 + [True]
    last = pieces[-1]
    assert last.eval_count == 8 and last.prompt_eval_count == whole.prompt_eval_count
    assert 0 < (last.total_duration or 0) >= (last.eval_duration or 0)


def test_generate_whole_and_streaming(client: ollama.Client, engine: FakeEngine) -> None:
    whole = client.generate(engine.name, "Hi", system="Be short.", options={"num_predict": 2})
    assert whole.response == "Paris Paris" and whole.model == engine.name
    sent = json.loads(engine.last()["body"])
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    raw = list(client.generate(engine.name, "Hi", raw=True, stream=True))
    assert "".join(piece.response or "" for piece in raw).strip() == " ".join(["Paris"] * 8)
    assert engine.last()["path"] == "/v1/completions" and raw[-1].eval_count == 8


def test_embeddings(client: ollama.Client, engine: FakeEngine) -> None:
    assert client.embed(engine.name, ["a"]).embeddings == [[0.25, 0.5]]
    assert list(client.embeddings(engine.name, "a").embedding) == [0.25, 0.5]


def test_models(client: ollama.Client, engine: FakeEngine, stack: Stack) -> None:
    names = [model.model for model in client.list().models]
    assert names == [f"{engine.name}:latest", f"org/{engine.name}:latest"]
    (running,) = client.ps().models
    assert running.name == f"{engine.name}:latest" and running.context_length == 4096
    shown = client.show(f"{engine.name}:latest")
    assert shown.modelinfo is not None and 4096 in shown.modelinfo.values()
    assert stack.client.get("/api/version").json()["version"][0].isdigit()


def test_tools_find_what_they_look_for(stack: Stack) -> None:
    found = stack.client.get("/")
    assert (found.status_code, found.text) == (200, "Ollama is running")
    assert found.headers["content-type"] == "text/plain; charset=utf-8"
    for path in ("/", "/api/version", "/api/tags"):
        asked, head = stack.client.get(path), stack.client.head(path)
        assert head.status_code == 200 and head.content == b""
        assert head.headers["content-length"] == str(len(asked.content))
    assert stack.client.post("/").status_code == 405
    assert stack.client.head("/api/chat").status_code == 405


def test_a_request_without_a_prompt_only_wants_the_model(
    client: ollama.Client, engine: FakeEngine
) -> None:
    assert client.generate(engine.name, "", keep_alive=5).done_reason == "load"
    assert client.chat(engine.name, [], keep_alive=0).done_reason == "unload"
    assert engine.last() == {}


def test_errors_are_in_ollamas_words(client: ollama.Client, stack: Stack) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("none", HI)
    assert caught.value.status_code == 404 and "'none' is not served here" in caught.value.error
    with pytest.raises(ollama.ResponseError, match="not served here"):
        list(client.chat("none", HI, stream=True))
    assert set(stack.post({"model": "none"}, "/api/show").json()) == {"error"}
    with stack.engine(max_model_len=4) as engine:
        with pytest.raises(ollama.ResponseError, match="maximum context length") as caught:
            client.generate(engine.name, "a b c d e f g")
        assert caught.value.status_code == 400


@pytest.mark.parametrize("verb", ["pull", "push", "delete", "copy", "create", "blobs/sha256:0"])
def test_the_models_of_a_server_are_its_operators(stack: Stack, verb: str) -> None:
    method = "DELETE" if verb == "delete" else "POST"
    answer = stack.client.request(method, f"/api/{verb}", json={"model": "x"})
    assert answer.status_code == 400 and "chosen by the operator" in answer.json()["error"]


def test_other_paths_and_methods(stack: Stack) -> None:
    assert stack.client.get("/api/nothing").status_code == 404
    answer = stack.client.get("/api/chat")
    assert answer.status_code == 405 and "does not take GET" in answer.json()["error"]
    assert stack.client.post("/api/tags").status_code == 405
    assert stack.client.post("/api/chat", content=b"{").json()["error"].endswith("valid JSON.")


def test_an_engine_that_dies_in_a_stream_ends_it_with_an_error(stack: Stack) -> None:
    with stack.engine(fake_cut_after=2) as engine:
        answer = stack.post({"model": engine.name, "messages": HI}, "/api/chat")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "in the middle of its answer" in lines[-1]["error"] and len(lines) == 3


def test_bounds_hold_for_translated_requests_too(stack: Stack, engine: FakeEngine) -> None:
    answer = stack.post(
        {"model": engine.name, "messages": HI, "options": {"stop": ["x"] * 1000}}, "/api/chat"
    )
    assert answer.status_code == 400 and "stop" in answer.json()["error"]


def test_keys(tmp_path: Path) -> None:
    key = Key("k", digest_key("secret"), "t", models=("mine",))
    replica = (Replica("r", f"unix:{tmp_path}/none"),)
    models = tuple(ServedModel(name, (), "ready", 4096, 7, replica) for name in ("mine", "other"))
    with running_gateway(tmp_path, Roster(1, models, (key,), is_open=False)) as stack:
        refused = httpx.get(f"{stack.url}/api/tags")
        assert refused.status_code == 401 and "API key is needed" in refused.json()["error"]
        for path in ("/", "/api/version"):  # that it is here, before a key is known
            assert httpx.get(f"{stack.url}{path}").status_code == 200
            assert httpx.head(f"{stack.url}{path}").status_code == 200
            assert httpx.post(f"{stack.url}{path}").status_code == 405
        client = ollama.Client(host=stack.url, headers={"authorization": "Bearer secret"})
        assert [model.model for model in client.list().models] == ["mine:latest"]
        for name, messages, status in (("other", HI, 403), ("other", [], 403), ("mine", HI, 502)):
            with pytest.raises(ollama.ResponseError) as caught:
                client.chat(name, messages)
            assert caught.value.status_code == status
        assert client.chat("mine", []).done_reason == "load"
        client._client.close()


SSE = [
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
    'data: {"choices":[{"index":0,"delta":{"content":"Zürich 🏔"}}]}\r\n\r\n'.encode(),
    b': ping\n\ndata: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":'
    b'{"name":"f","arguments":"{\\"x\\""}}]}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}'
    b'}]},"finish_reason":"tool_calls"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\ndata: [DONE]\n\n',
]


def test_events_that_are_cut_anywhere(stack: Stack, tmp_path: Path) -> None:
    stream = b"".join(SSE)
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    for size in (1, 7, 64):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        place = tmp_path / f"{size}.sock"
        with scripted_engine(place, (head + chunks + b"0\r\n\r\n",)):
            stack.serve(f"odd-{size}", place)
            body = {"model": f"odd-{size}", "messages": HI, "tools": []}
            answer = stack.post(body, "/api/chat")
            stack.forget(f"odd-{size}")
        text, calls, last = (json.loads(line) for line in answer.text.splitlines())
        assert text["message"]["content"] == "Zürich 🏔"
        assert calls["message"]["tool_calls"] == [
            {"function": {"name": "f", "arguments": {"x": 1}}}
        ]
        assert (last["prompt_eval_count"], last["eval_count"]) == (3, 4)


def test_a_client_that_leaves_stops_the_engine(stack: Stack) -> None:
    with stack.engine(fake_rate=5, fake_chunks=500) as engine:
        body = {"model": engine.name, "messages": HI}
        with httpx.stream("POST", f"{stack.url}/api/chat", json=body) as answer:
            assert "Paris" in next(answer.iter_lines())
        until(lambda: engine.running() == 0)
        assert engine.get("/fake/info").json()["aborted"] == 1
