"""What an engine is told instead of what a client wrote, and what a client does not get to see."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.quota import Key, digest_key
from serve.roster import Replica, Roster
from tests.gateway.stack import (
    FAKE_VLLM,
    FakeEngine,
    Stack,
    running_engine,
    running_gateway,
    scripted_engine,
)

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
KEYS = tuple(
    Key(f"k-{name}", digest_key(f"key-{name}"), tenant, models=models)
    for name, tenant, models in (
        ("a", "red", ()), ("b", "red", ()), ("c", "blue", ()), ("d", "blue", ("other*", "org/mo*")),
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway that asks for keys; its own requests have that of tenant red."""
    with running_gateway(
        tmp_path_factory.mktemp("closed"), Roster(0, (), KEYS, (), False)
    ) as stack:
        stack.keys, stack.headers = KEYS, {"authorization": "Bearer key-a"}
        yield stack


def told(engine: FakeEngine) -> dict[str, Any]:
    body = json.loads(engine.last()["body"])
    assert isinstance(body, dict)
    return body


def salt_of(stack: Stack, engine: FakeEngine, key: str, **more: object) -> str:
    stack.headers = {"authorization": f"Bearer key-{key}"}
    assert stack.post({"model": engine.name} | more).status_code == 200
    salt = told(engine)["cache_salt"]
    assert isinstance(salt, str) and len(salt) == 64
    return salt


def test_tenants_have_salts_of_their_own(closed: Stack) -> None:
    with closed.engine() as engine:
        red = salt_of(closed, engine, "a")
        assert salt_of(closed, engine, "b") == red
        blue = salt_of(closed, engine, "c")
        assert blue != red
        own = salt_of(closed, engine, "c", cache_salt=red)
        assert own not in (red, blue) and salt_of(closed, engine, "c", cache_salt="x") != own
        closed.serve(engine.name, engine.socket, takes_salt=False)
        assert closed.post({"model": engine.name}).status_code == 200
        assert "cache_salt" not in told(engine)
        salt_of(closed, engine, "c", cache_salt=red)


def test_an_open_gateway_adds_no_salt_and_passes_none_as_it_is(
    stack: Stack, engine: FakeEngine
) -> None:
    stack.post({"model": engine.name})
    assert "cache_salt" not in told(engine)
    stack.post({"model": engine.name, "cache_salt": "mine"})
    assert len(told(engine)["cache_salt"]) == 64


def test_a_key_may_use_its_models_only(closed: Stack) -> None:
    with closed.engine() as engine:
        for key, status in (("a", 200), ("d", 200)):
            closed.headers = {"authorization": f"Bearer key-{key}"}
            assert closed.post({"model": engine.name}).status_code == status
        closed.serve("secret", engine.socket)
        answer = closed.post({"model": "secret"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
        listed = closed.client.get("/v1/models", headers=closed.headers).json()["data"]
        assert {card["root"] for card in listed} == {engine.name}
        assert closed.client.get("/v1/models/secret", headers=closed.headers).status_code == 404
        closed.forget("secret")


def test_the_replicas_know_the_model_by_another_name(stack: Stack, tmp_path: Path) -> None:
    with running_engine(tmp_path / "u.sock", "org/inner") as engine:
        stack.serve("outer", engine.socket, upstream="org/inner")
        for name in ("outer", "org/outer", "OUTER"):
            answer = stack.post({"model": name, "messages": [{"role": "user", "content": name}]})
            assert answer.status_code == 200 and told(engine)["model"] == "org/inner"
        stack.forget("outer")


def test_the_usage_is_asked_for_and_kept(stack: Stack, engine: FakeEngine) -> None:
    plain = stack.post({"model": engine.name, "stream": True}).text
    assert told(engine)["stream_options"] == {"include_usage": True}
    assert '"choices": []' not in plain and "usage" not in plain
    assert plain.endswith("}]}\n\ndata: [DONE]\n\n") and plain.count("Paris") == 8
    options = {"include_usage": True, "x": 1}
    asked = stack.post({"model": engine.name, "stream": True, "stream_options": options}).text
    assert told(engine)["stream_options"] == options
    assert asked.count('"choices": [], "usage": {"prompt_tokens"') == 1


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES, "/v1/embeddings", "/tokenize"])
def test_other_routes_get_no_options_that_they_do_not_know(
    stack: Stack, engine: FakeEngine, path: str
) -> None:
    stack.client.post(path, json={"model": engine.name, "stream": True})
    assert "stream_options" not in told(engine)


def test_deepseeks_words_are_told_to_who_asks(stack: Stack) -> None:
    with stack.engine(fake_cached_tokens=2) as engine:
        stack.headers = {"x-inhouse-usage": "deepseek"}
        body = {"model": engine.name, "messages": [{"role": "user", "content": "a b c"}]}
        answer = stack.post(body)
        used = answer.json()["usage"]
        stream = body | {"stream": True, "stream_options": {"include_usage": True}}
        events = stack.post(stream).text.split("\n\n")
        stack.headers = {}
        assert stack.post(body).json()["usage"]["prompt_tokens"] == used["prompt_tokens"]
    assert int(answer.headers["content-length"]) == len(answer.content)
    words = {"prompt_cache_hit_tokens": 2, "prompt_cache_miss_tokens": used["prompt_tokens"] - 2}
    assert used.items() >= words.items()
    assert json.loads(events[-3].removeprefix("data: "))["usage"].items() >= words.items()


def test_engines_over_tcp_get_their_key_and_host(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, str(FAKE_VLLM), "--port", str(port), "--served-model-name", "tcp"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        while "startup complete" not in process.stderr.readline():
            assert process.poll() is None
        try:
            address = f"http://127.0.0.1:{port}"
            stack.serve_at("tcp", Replica("tcp-0", address, key="upstream-key"))
            for _ in range(2):
                assert stack.post({"model": "tcp"}).status_code == 200
            headers = httpx.get(f"{address}/fake/last", trust_env=False).json()["headers"]
        finally:
            process.kill()
            process.wait()
            stack.forget("tcp")
    assert headers["authorization"] == "Bearer upstream-key"
    assert headers["host"] == f"127.0.0.1:{port}"


BUSY = (
    b'HTTP/1.1 503 X\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{"error":"no"}'
)


def test_who_drains_is_passed_over(stack: Stack, tmp_path: Path, engine: FakeEngine) -> None:
    with scripted_engine(tmp_path / "busy.sock", *[(BUSY,)] * 9) as requests:
        stack.serve(engine.name, tmp_path / "busy.sock", engine.socket)
        statuses = {stack.post({"model": engine.name, "seed": n}).status_code for n in range(6)}
        assert statuses == {200} and requests
        stack.serve(engine.name, tmp_path / "busy.sock")
        answer = stack.post({"model": engine.name})
        assert (answer.status_code, answer.text) == (503, '{"error":"no"}')


def form(model: str, *more: tuple[str, str]) -> tuple[bytes, dict[str, str]]:
    parts = [("model", model), *more] if model else [*more]
    body = "".join(
        f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in parts
    )
    body += '--XX\r\ncontent-disposition: form-data; name="file"; filename="model"\r\n'
    body += "content-type: audio/wav\r\n\r\n\x00name=model\r\n\r\n\r\n--XX--\r\n"
    return body.encode(), {"content-type": "multipart/form-data; boundary=XX"}


def test_a_form_goes_to_its_model_as_it_is(stack: Stack, tmp_path: Path) -> None:
    with scripted_engine(tmp_path / "form.sock", (BUSY,)) as requests:
        stack.serve("ears", tmp_path / "form.sock")
        body, headers = form("ears", ("language", "en"))
        stack.client.post("/v1/audio/transcriptions", content=body, headers=headers)
        stack.forget("ears")
    assert requests[0].startswith(b"POST /v1/audio/transcriptions HTTP/1.1\r\n")
    assert b"\r\ncontent-type: multipart/form-data; boundary=XX\r\n" in requests[0]
    assert requests[0].endswith(b"\r\n\r\n" + body)


def test_a_form_names_its_model_as_the_engine_does(stack: Stack, tmp_path: Path) -> None:
    with scripted_engine(tmp_path / "form.sock", (BUSY,), (BUSY,)) as requests:
        for upstream, wanted in (("", "ears"), ("far/ears", "far/ears")):
            stack.serve("ears", tmp_path / "form.sock", upstream=upstream)
            body, headers = form("org/ears", ("language", "en"))
            stack.client.post("/v1/audio/transcriptions", content=body, headers=headers)
            told, _ = form(wanted, ("language", "en"))
            assert requests[-1].endswith(b"\r\n\r\n" + told)
            assert b"\r\ncontent-length: %d\r\n" % len(told) in requests[-1]
        stack.forget("ears")


@pytest.mark.parametrize(
    ("body", "headers"),
    [form(""), form("a", ("model", "b")), (b"{}", {"content-type": "application/json"}),
     (form("a")[0], {"content-type": "multipart/form-data"}), form("x" * 2000)],
)  # fmt: skip
def test_a_form_must_name_one_model(stack: Stack, body: bytes, headers: dict[str, str]) -> None:
    answer = stack.client.post("/v1/audio/transcriptions", content=body, headers=headers)
    assert answer.status_code == 400, answer.text


def test_a_server_that_ends_its_answer_with_the_connection_is_understood(
    stack: Stack, tmp_path: Path
) -> None:
    old = b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{}"
    early = b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]"
    with scripted_engine(tmp_path / "old.sock", (old,), (early,)):
        stack.serve("old", tmp_path / "old.sock")
        assert stack.post({"model": "old"}).text == "{}"
        answer = stack.post({"model": "old"})
        assert answer.text == "[]" and "link" not in answer.headers
        stack.forget("old")
