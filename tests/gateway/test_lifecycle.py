"""Clients that leave, engines that come and go, supervisors that die, and the end."""

import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from serve.roster import Roster
from tests.gateway.stack import FakeEngine, Stack, running_gateway, until


def open_request(stack: Stack, body: bytes) -> socket.socket:
    connection = socket.create_connection(stack.address(), timeout=10)
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    return connection


@pytest.mark.parametrize("stream", [b"true", b"false"])
def test_a_client_that_leaves_before_the_first_byte_is_told_to_the_engine(
    stack: Stack, stream: bytes
) -> None:
    with stack.engine(fake_stall_s=60) as engine:
        body = b'{"model":"%b","stream":%b}' % (engine.name.encode(), stream)
        with open_request(stack, body):
            until(lambda: engine.running() == 1)
        assert until(lambda: engine.running() == 0) < 1
    text = stack.client.get("/metrics").text
    assert f'inhouse_client_disconnects_total{{model="{engine.name}"}} 1.0' in text
    assert f'inhouse_requests_running{{model="{engine.name}"}} 0.0' in text


def test_a_client_that_leaves_in_a_stream_is_told_to_the_engine(stack: Stack) -> None:
    with stack.engine(fake_rate=100, fake_chunks=10_000) as engine:
        others = [open_request(stack, b'{"model":"%b","stream":true}' % engine.name.encode())]
        body = b'{"model":"%b","stream":true}' % engine.name.encode()
        with open_request(stack, body) as leaving:
            while b"Paris" not in leaving.recv(65536):
                pass
            until(lambda: engine.running() == 2)
        assert until(lambda: engine.running() == 1) < 1
        while b"Paris" not in others[0].recv(65536):
            pass
        others[0].close()


def test_a_client_that_leaves_in_its_body_harms_nobody(stack: Stack, engine: FakeEngine) -> None:
    connection = open_request(stack, b"{}")
    with connection:
        connection.sendall(
            b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"
        )
    assert stack.post({"model": engine.name}).status_code == 200
    assert engine.get("/fake/info").json()["received"] == 1


def test_a_slow_reader_holds_the_engine_back_not_the_memory(stack: Stack) -> None:
    chunk, chunks = 4000, 10_000
    with stack.engine(fake_chunk_text="x" * chunk, fake_chunks=chunks) as engine:
        before = resident_bytes(stack)
        body = b'{"model":"%b","stream":true}' % engine.name.encode()
        with open_request(stack, body) as slow:
            until(lambda: engine.running() == 1)
            seen = -1
            while (now := generated(engine)) != seen:  # until it stands still
                seen = now
                time.sleep(0.2)
            assert seen < chunks / 2
            assert resident_bytes(stack) - before < 10 * 2**20
            total = len(slow.recv(1 << 20))
            while (data := slow.recv(1 << 20)) and not data.endswith(b"0\r\n\r\n"):
                total += len(data)
        assert total > chunk * chunks and generated(engine) == chunks


def generated(engine: FakeEngine) -> int:
    rows = engine.get("/metrics").text.splitlines()
    return int(float(next(row for row in rows if "generation_tokens_total{" in row).split()[-1]))


def resident_bytes(stack: Stack) -> int:
    status = Path(f"/proc/{stack.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split("kB")[0]) * 1024


def test_many_streams_at_once_are_all_complete(stack: Stack) -> None:
    texts: list[str] = []
    with stack.engine(fake_chunks=20, fake_rate=200) as engine:
        body = {"model": engine.name, "stream": True}
        threads = [
            threading.Thread(target=lambda: texts.append(stack.post(body).text)) for _ in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(texts) == 50 and len(set(texts)) == 1
    assert texts[0].endswith("data: [DONE]\n\n") and texts[0].count("Paris") == 20


def test_the_gateway_is_small(stack: Stack, engine: FakeEngine) -> None:
    for _ in range(100):
        stack.post({"model": engine.name})
    assert resident_bytes(stack) < 80 * 2**20


def test_models_come_and_go_without_a_restart(stack: Stack) -> None:
    with stack.engine() as engine:
        assert stack.post({"model": engine.name}).status_code == 200
        stack.serve(engine.name)
        assert stack.post({"model": engine.name}).status_code == 503
        stack.serve(engine.name, engine.socket)
        assert stack.post({"model": engine.name}).status_code == 200
    assert stack.post({"model": engine.name}).status_code == 404


def test_a_drain_completes_what_runs_and_takes_nothing_new(tmp_path: Path) -> None:
    with (
        running_gateway(tmp_path, Roster()) as stack,
        stack.engine(fake_chunks=30, fake_rate=50) as engine,
    ):
        with stack.client.stream(
            "POST", "/v1/completions", json={"model": engine.name, "stream": True}
        ) as answer:
            pieces = answer.iter_text()
            next(pieces)
            stack.process.send_signal(signal.SIGTERM)
            until(lambda: not accepts(stack))
            assert "".join(pieces).endswith("data: [DONE]\n\n")
        assert stack.process.wait(5) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_drain_has_an_end(tmp_path: Path, stream: bool) -> None:
    """What still runs then is told so, in whatever way is left."""
    knobs = {"fake_rate": 10, "fake_chunks": 1000} if stream else {"fake_stall_s": 60}
    with running_gateway(tmp_path, Roster(), drain_s=0.1) as stack, stack.engine(**knobs) as engine:
        body = b'{"model":"%b","stream":%b}' % (engine.name.encode(), str(stream).lower().encode())
        with open_request(stack, body) as connection, connection.makefile("rb") as answer:
            until(lambda: engine.running() == 1)
            stack.process.send_signal(signal.SIGTERM)
            assert stack.process.wait(5) == 0
            text = answer.read().decode()
        until(lambda: engine.running() == 0)
    assert text.startswith(f"HTTP/1.1 {200 if stream else 503}")
    assert "The server is shutting down." in text and "[DONE]" not in text


def accepts(stack: Stack) -> bool:
    try:
        socket.create_connection(stack.address(), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_supervisor_that_comes_back_in_time_is_followed_again(tmp_path: Path) -> None:
    with running_gateway(tmp_path, Roster()) as stack, stack.engine() as engine:
        stack.control.stop()
        assert stack.post({"model": engine.name}).status_code == 200
        stack.control.start()
        stack.serve("late")
        stack.forget("late")


def test_a_gateway_does_not_outlive_its_supervisor_for_long(tmp_path: Path) -> None:
    with running_gateway(tmp_path, Roster(), grace_s=0.3) as stack:
        stack.control.stop()
        assert stack.process.wait(5) == 0


def test_no_text_of_a_prompt_is_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running_gateway(tmp_path, Roster(), log_level="debug") as stack, stack.engine() as engine:
        for model in (engine.name, "wrong", 3):
            stack.post({"model": model, "prompt": "canary"})
        stack.client.post("/v1/completions", content=b'{"canary')
        engine.process.kill()
        engine.process.wait()
        stack.post({"model": engine.name, "prompt": "canary"})
        with pytest.raises(httpx.HTTPStatusError):
            stack.client.get("/v1/canary").raise_for_status()
    logged = capfd.readouterr().err
    assert "engine gone" in logged and "canary" not in logged
