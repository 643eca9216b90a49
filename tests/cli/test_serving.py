import json
import signal
import socket

import httpx
import pytest

from tests.cli.conftest import House, Inhouse


def test_a_model_is_served_until_ctrl_c(inhouse: Inhouse, house: House) -> None:
    with house.serving("tiny") as process:
        assert httpx.get(f"{house.url}/ready").status_code == 200
        shown = json.loads(inhouse("ps", "--json").out)
        assert shown["pid"] == process.pid and shown["address"] == house.url
        (model,) = shown["models"]
        assert (model["name"], model["state"], model["restarts"]) == ("tiny", "ready", 0)
        table = inhouse("ps").out
        assert "tiny" in table and "ready" in table and house.url in table
        said = inhouse("chat", "-m", "What is the capital of France?")
        assert (said.code, said.err) == (0, "") and "Paris" in said.out
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert inhouse("ps").code == 7


def test_a_key_is_asked_for(
    inhouse: Inhouse, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    (house.folder / "key").write_text("sk-mine\n")
    with house.serving("tiny", "--host", "0.0.0.0", "--api-key-file", "key"):
        assert httpx.get(f"{house.url}/v1/models").status_code == 401
        refused = inhouse("chat", "-m", "hi")
        assert refused.code == 8 and "hint: set INHOUSE_API_KEY" in refused.err
        monkeypatch.setenv("INHOUSE_API_KEY", "sk-mine")
        assert "Paris" in inhouse("chat", "-m", "hi").out
    for log in (house.folder / "serve.log", *(house.folder / "home").rglob("*.log")):
        assert "sk-mine" not in log.read_text()


def test_models_come_and_go(inhouse: Inhouse, house: House) -> None:
    with house.serving("tiny"):
        assert inhouse("stop", "tiny").err == "stopped: tiny\n"
        assert json.loads(inhouse("ps", "--json").out)["models"] == []
        assert inhouse("stop", "tiny").code == 3
        assert inhouse("chat", "-m", "hi").code == 3
        loaded = inhouse("load", "tiny")
        assert loaded.code == 0 and loaded.err.startswith("tiny is ready after ")
        log = inhouse("logs", "tiny")
        assert log.code == 0 and ".log" in log.err
        assert inhouse("logs").out == log.out  # there is only one
        assert inhouse("load", "nothing-like-it").code == 3


def test_detached_it_goes_on_until_it_is_stopped(inhouse: Inhouse, house: House) -> None:
    started = house.run("serve", "tiny", "--detach", "--json")
    assert started.code == 0, started.err
    status = json.loads(started.out)
    try:
        assert httpx.get(f"{house.url}/ready").status_code == 200
        bench = inhouse("bench", "--streams", "2", "--requests", "1", "--output", "4")
        assert bench.code == 0, bench.err
        assert inhouse("logs", "-n", "5").code == 0
    finally:
        stopped = inhouse("stop")
    assert (stopped.code, stopped.err) == (0, "stopped: everything\n")
    assert inhouse("ps").code == 7
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{house.url}/ready")
    assert status["models"][0]["name"] == "tiny"


def test_the_first_ctrl_c_drains_and_the_second_does_not(house: House) -> None:
    body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with (
        house.serving("slow", "--drain", "60s") as process,
        httpx.stream("POST", f"{house.url}/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGINT)
        for _ in range(10):  # two seconds of the answer: it is not cut
            next(lines)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_a_second_supervisor_is_refused(inhouse: Inhouse, house: House) -> None:
    with house.serving("tiny"), socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        ran = inhouse("serve", "tiny", "--port", port)
        assert ran.code == 7 and "serves already" in ran.err
        assert httpx.get(f"{house.url}/ready").status_code == 200


@pytest.mark.parametrize("detached", [(), ("--detach",)])
def test_an_engine_that_dies_while_loading_is_told(
    inhouse: Inhouse, house: House, detached: tuple[str, ...]
) -> None:
    ran = house.run("serve", "broken", *detached)
    assert ran.code == 6
    assert "error: the engine of broken ended before it was ready" in ran.err
    assert "hint: " in ran.err and "Traceback" not in ran.err
    assert inhouse("ps").code == 7, "nothing is left running"


def test_a_port_that_is_taken(inhouse: Inhouse, house: House) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", house.port))
        taken.listen()
        ran = inhouse("serve", "tiny")
    assert ran.code == 7
    assert f"error: somebody else listens there: 127.0.0.1:{house.port}" in ran.err
    assert f"hint: inhouse serve --port {house.port + 1}" in ran.err


def test_an_open_door_is_refused_without_a_key(inhouse: Inhouse, house: House) -> None:
    ran = inhouse("serve", "tiny", "--host", "0.0.0.0")
    assert ran.code == 7 and "without a key: 0.0.0.0" in ran.err
    assert inhouse("serve", "tiny", "--host", "no.such.host.invalid").code == 2


def test_an_unknown_model_is_told_with_near_ones(inhouse: Inhouse, house: House) -> None:
    ran = inhouse("serve", "tinny")
    assert ran.code == 3
    assert ran.err == "error: no such model: tinny\n\nhint: did you mean tiny?\n"


def test_without_a_runtime_the_cure_is_told(inhouse: Inhouse) -> None:
    ran = inhouse("serve", "--device", "cpu")
    assert ran.code == 6
    assert "hint: inhouse engine install --device cpu" in ran.err


@pytest.mark.parametrize(
    "arguments", [("ps",), ("load", "tiny"), ("stop",), ("chat", "-m", "hi"), ("bench",)]
)
def test_verbs_that_need_a_server_say_how_to_start_one(
    inhouse: Inhouse, house: House, arguments: tuple[str, ...]
) -> None:
    ran = inhouse(*arguments)
    assert ran.code == 7 and "hint: inhouse serve" in ran.err
