"""Every request is booked once, before its client hears the end of it, and frees all it had."""

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.journal import End, Journals, Refusal, Start
from serve.quota import Key, Limits, Price, digest_key
from serve.roster import Roster
from tests.gateway.stack import FakeEngine, Stack, running_gateway, until

KEY = Key("k", digest_key("key"), "red", limits=Limits(concurrency=5))
PRICE = Price(input=100, cached_input=10, output=1000)


@contextlib.contextmanager
def booked(folder: Path, **more: object) -> Iterator[Stack]:
    """A gateway that asks for a key, and keeps a journal in `folder`/journal."""
    (folder / "journal").mkdir()
    roster = Roster(0, (), (KEY,), is_open=False)
    wish = {"journal_folder": str(folder / "journal")} | more
    with running_gateway(folder, roster, **wish) as stack:
        stack.keys, stack.headers = (KEY,), {"authorization": "Bearer key"}
        yield stack


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with booked(tmp_path_factory.mktemp("books")) as stack:
        yield stack


def records(stack: Stack) -> list[object]:
    journals = Journals(stack.folder / "journal")
    return [
        record
        for writer in journals.writers()
        for segment in writer.segments
        for record in journals.read(writer, segment, 0, 10**6).records
    ]


def ends(stack: Stack, model: str) -> list[End]:
    return [each for each in records(stack) if isinstance(each, End) and each.model == model]


def the_end(stack: Stack, model: str) -> End:
    until(lambda: ends(stack, model))
    (end,) = ends(stack, model)
    (start,) = [each for each in records(stack) if isinstance(each, Start) and each.id == end.id]
    assert (start.key, start.tenant, start.model) == ("k", "red", model)
    assert (end.key, end.tenant, end.at) == ("k", "red", start.at)
    return end


def is_idle(stack: Stack, engine: FakeEngine) -> bool:
    """Nothing of a request is left: not at the engine, not in the limits, not in the metrics."""
    text = stack.client.get("/metrics", headers=stack.headers).text
    running = f'inhouse_requests_running{{model="{engine.name}"}} 0.0'
    return engine.running() == 0 and (running in text or engine.name not in text)


def takes_all(stack: Stack, engine: FakeEngine) -> bool:
    """All places of the key are free: as many as there are can be taken at once."""
    connections = [request(stack, engine, stream=True) for _ in range(5)]
    with contextlib.ExitStack() as open_ones:
        for connection in connections:
            open_ones.enter_context(connection)
        return all(connection.recv(15) == b"HTTP/1.1 200 OK" for connection in connections)


def request(stack: Stack, engine: FakeEngine, **more: object) -> socket.socket:
    body = json.dumps({"model": engine.name} | more).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer key\r\n"
    connection = socket.create_connection(stack.address(), timeout=10)
    connection.sendall(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
    return connection


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_counted_is_booked(books: Stack, path: str, stream: bool) -> None:
    with books.engine(fake_cached_tokens=2) as engine:
        books.serve(engine.name, engine.socket, price=PRICE)
        messages = [{"role": "user", "content": "one two three"}]
        body = {"model": engine.name, "messages": messages, "input": messages, "stream": stream}
        answer = books.post(body, path)
        end = the_end(books, engine.name)
    assert answer.status_code == 200
    prompt = 6
    assert (end.input_tokens, end.cached_tokens, end.output_tokens) == (prompt, 2, 8)
    assert (end.status, end.outcome, end.is_estimated) == (200, "ok", False)
    assert end.cost_nanos == (prompt - 2) * 100 + 2 * 10 + 8 * 1000
    assert (end.route, end.replica) == (path, f"{engine.name}-0")
    assert end.ttft_s is not None and 0 < end.ttft_s <= end.duration_s


def test_an_engines_refusal_costs_nothing(books: Stack) -> None:
    with books.engine(fake_error=500) as engine:
        assert books.post({"model": engine.name}).status_code == 500
        end = the_end(books, engine.name)
    assert (end.status, end.outcome) == (500, "error")
    assert (end.input_tokens, end.output_tokens, end.is_estimated) == (0, 0, False)


def test_what_was_delivered_is_charged_when_the_client_leaves(books: Stack) -> None:
    with books.engine(fake_chunks=1000, fake_rate=50) as engine:
        with request(books, engine, stream=True, prompt="a b c") as leaving:
            seen = b""
            while seen.count(b"Paris") < 5:
                seen += leaving.recv(4096)
        end = the_end(books, engine.name)
        until(lambda: is_idle(books, engine))
        assert takes_all(books, engine)
    assert (end.status, end.outcome, end.is_estimated) == (499, "left", True)
    assert 5 <= end.output_tokens < 50 and end.input_tokens > 0


def test_a_client_that_leaves_before_the_first_byte_pays_nothing(books: Stack) -> None:
    with books.engine(fake_stall_s=60) as engine:
        for stream in (True, False):
            with request(books, engine, stream=stream):
                until(lambda: engine.running() == 1)
            until(lambda: is_idle(books, engine))
        until(lambda: len(ends(books, engine.name)) == 2)
        for end in ends(books, engine.name):
            assert (end.outcome, end.input_tokens, end.output_tokens) == ("left", 0, 0)


def test_an_engine_that_dies_in_its_answer_is_booked_as_gone(books: Stack) -> None:
    with books.engine(fake_chunks=50, fake_cut_after=3) as engine:
        assert "in the middle" in books.post({"model": engine.name, "stream": True}).text
        end = the_end(books, engine.name)
        until(lambda: is_idle(books, engine))
    assert (end.status, end.outcome, end.is_estimated) == (502, "gone", True)
    assert end.output_tokens == 3


def test_refused_requests_have_no_start_and_free_everything(books: Stack) -> None:
    with books.engine(fake_stall_s=60) as engine:
        with contextlib.ExitStack() as open_ones:
            for _ in range(5):
                open_ones.enter_context(request(books, engine))
            until(lambda: engine.running() == 5)
            answer = books.post({"model": engine.name})
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                429,
                "rate_limit_exceeded",
            )
            assert int(answer.headers["retry-after-ms"]) > 0
        until(lambda: is_idle(books, engine))
        assert len([each for each in records(books) if isinstance(each, Start)
                    and each.model == engine.name]) == 5  # fmt: skip


def test_200_clients_never_have_more_than_their_places(books: Stack) -> None:
    with books.engine(fake_chunks=3, fake_rate=30) as engine:
        most, statuses, over = [0], [], threading.Event()

        def look() -> None:
            while not over.is_set():
                most[0] = max(most[0], engine.running())

        def ask() -> None:
            with httpx.Client(base_url=books.url, headers=books.headers, timeout=30) as client:
                for _ in range(2):
                    answer = client.post("/v1/completions", json={"model": engine.name})
                    statuses.append(answer.status_code)

        watching = threading.Thread(target=look)
        watching.start()
        threads = [threading.Thread(target=ask) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        watching.join()
        assert set(statuses) == {200, 429} and most[0] <= 5
        assert statuses.count(200) == len(ends(books, engine.name)) >= 5
        until(lambda: is_idle(books, engine))
        assert takes_all(books, engine)


@pytest.mark.parametrize("commit", ["group", "each"])
def test_what_a_client_saw_finished_is_in_the_books_of_a_killed_gateway(
    tmp_path: Path, commit: str
) -> None:
    finished: list[str] = []
    with booked(tmp_path, commit=commit) as stack, stack.engine(fake_chunks=2) as engine:

        def ask(stream: bool) -> None:
            with (
                httpx.Client(base_url=stack.url, headers=stack.headers, timeout=30) as client,
                contextlib.suppress(httpx.TransportError),
            ):
                while True:
                    answer = client.post(
                        "/v1/chat/completions", json={"model": engine.name, "stream": stream}
                    )
                    if answer.status_code == 200:
                        assert not stream or answer.text.endswith("[DONE]\n\n")
                        finished.append(answer.headers["x-request-id"])

        threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: len(finished) > 200, 30)
        stack.process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
        stack.process.wait()
        booked_ids = [end.id for end in ends(stack, engine.name) if end.outcome == "ok"]
    assert len(booked_ids) == len(set(booked_ids))
    assert set(finished) <= set(booked_ids)
    # Those whose last bytes were on their way when it died.
    assert len(set(booked_ids) - set(finished)) <= 8


def test_a_drained_request_is_booked(tmp_path: Path) -> None:
    with booked(tmp_path, drain_s=0.1) as stack, stack.engine(fake_stall_s=60) as engine:
        with request(stack, engine) as connection:
            until(lambda: engine.running() == 1)
            stack.process.send_signal(signal.SIGTERM)
            assert stack.process.wait(5) == 0
            assert connection.recv(4096).startswith(b"HTTP/1.1 503")
        end = the_end(stack, engine.name)
    assert (end.status, end.outcome) == (503, "drained")


def test_a_refusal_is_noted_for_the_audit(books: Stack) -> None:
    before = len(records(books))
    assert books.client.get("/v1/models").status_code == 401
    assert books.client.get("/nowhere", headers=books.headers).status_code == 404
    until(lambda: len(records(books)) > before)
    (refusal,) = records(books)[before:]
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code, refusal.client) == (401, "invalid_api_key", "127.0.0.1")
