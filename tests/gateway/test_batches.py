"""Files and batches on a real gateway, by OpenAI's own SDK."""

import io
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from serve.quota import Key, digest_key
from serve.roster import Replica, Roster, ServedModel
from tests.gateway.stack import FakeEngine, Stack, running_engine, running_gateway, until

CHAT: Any = "/v1/chat/completions"
CANARY = "zanzibar-canary"


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool") / "spool"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, spool: Path) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("gw")
    with running_gateway(folder, Roster(), spool_folder=str(spool)) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai_client(stack, "none") as client:
        yield client


def openai_client(stack: Stack, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0)


def jsonl(model: str, *texts: str) -> io.BytesIO:
    rows = [
        {
            "custom_id": f"id-{text[:40]}",
            "method": "POST",
            "url": CHAT,
            "body": {"model": model, "messages": [{"role": "user", "content": text}]},
        }
        for text in texts
    ]
    file = io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())
    file.name = "in.jsonl"
    return file


def order(client: openai.OpenAI, model: str, *texts: str) -> Any:
    file = client.files.create(file=jsonl(model, *texts), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"for": "a test"}
    )


def finished(client: openai.OpenAI, id: str, timeout_s: float = 15) -> Any:
    ends = ("completed", "failed", "cancelled", "expired")
    until(lambda: client.batches.retrieve(id).status in ends, timeout_s)
    return client.batches.retrieve(id)


def nothing_readable(spool: Path) -> None:
    """What was asked and answered lies there, but nobody can read it."""
    assert sum(path.stat().st_size for path in spool.iterdir()) > 1000
    for path in spool.iterdir():
        assert not any(word in path.read_bytes() for word in (CANARY.encode(), b"Paris"))


def test_a_batch_from_its_file_to_its_answers(
    client: openai.OpenAI, engine: FakeEngine, spool: Path
) -> None:
    texts = [CANARY, *(str(number) for number in range(20))]
    batch = order(client, engine.name, *texts)
    assert batch.status == "validating" and batch.metadata == {"for": "a test"}
    assert batch.expires_at - batch.created_at == 24 * 3600
    nothing_readable(spool)
    batch = finished(client, batch.id)
    nothing_readable(spool)
    assert batch.status == "completed" and batch.error_file_id is None
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed) == (21, 21)
    assert batch.output_file_id is not None
    known = client.files.retrieve(batch.output_file_id)
    rows = [json.loads(line) for line in client.files.content(known.id).text.splitlines()]
    assert {row["custom_id"] for row in rows} == {f"id-{text}" for text in texts}
    assert all(row["response"]["status_code"] == 200 and row["error"] is None for row in rows)
    assert "Paris" in rows[0]["response"]["body"]["choices"][0]["message"]["content"]
    with pytest.raises(openai.NotFoundError):  # fetched, and gone
        client.files.content(known.id)
    client.files.delete(batch.input_file_id)
    assert [file.id for file in client.files.list()] == []
    assert [one.id for one in client.batches.list()] == [batch.id]


def test_lines_that_fail_are_told_apart(client: openai.OpenAI, stack: Stack) -> None:
    with stack.engine(max_model_len=30) as engine:
        batch = finished(client, order(client, engine.name, "short", "long " * 50).id)
    assert batch.status == "completed"
    (bad,) = map(json.loads, client.files.content(batch.error_file_id).text.splitlines())
    assert bad["response"]["status_code"] == 400
    assert "maximum context length" in bad["response"]["body"]["error"]["message"]
    gone = finished(client, order(client, "nobody", "a").id)
    (row,) = map(json.loads, client.files.content(gone.error_file_id).text.splitlines())
    assert row["response"]["body"]["error"]["code"] == "model_not_found"


def test_what_is_no_batch(client: openai.OpenAI, engine: FakeEngine) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=jsonl("m", "a"), purpose="fine-tune")
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-0", endpoint=CHAT, completion_window="24h")
    file = client.files.create(file=(b"{nonsense"), purpose="batch")
    with pytest.raises(openai.BadRequestError, match="endpoint"):
        client.batches.create(
            input_file_id=file.id, endpoint="/v1/moderations", completion_window="24h"
        )
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    batch = finished(client, batch.id)
    assert batch.status == "failed" and batch.errors is not None and batch.errors.data
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == ("invalid_json_line", 1)


def test_a_cancelled_batch_ends(client: openai.OpenAI, stack: Stack) -> None:
    with stack.engine(fake_rate=20) as engine:
        batch = order(client, engine.name, *(str(number) for number in range(200)))
        until(lambda: engine.running() > 0)
        assert client.batches.cancel(batch.id).status == "cancelling"
        batch = finished(client, batch.id)
    assert batch.status == "cancelled" and batch.cancelled_at is not None
    assert batch.request_counts is not None and batch.request_counts.completed < 200
    with pytest.raises(openai.BadRequestError):
        client.batches.cancel(batch.id)


def test_a_download_that_breaks_off_keeps_the_file(client: openai.OpenAI, stack: Stack) -> None:
    with stack.engine(fake_chunk_text="y" * 30_000) as engine:  # more than sockets hold
        batch = finished(client, order(client, engine.name, *map(str, range(80))).id)
    assert client.files.retrieve(batch.output_file_id).bytes > 80 * 8 * 30_000
    for _ in range(2):
        with stack.client.stream("GET", f"/v1/files/{batch.output_file_id}/content") as answer:
            next(answer.iter_raw(1000))
    assert len(client.files.content(batch.output_file_id).text.splitlines()) == 80
    # It has all bytes before the gateway knows that it is still there.
    until(lambda: stack.client.get(f"/v1/files/{batch.output_file_id}").status_code == 404)


def test_methods_and_paths(stack: Stack) -> None:
    def status(method: str, path: str) -> int:
        return stack.client.request(method, path).status_code

    assert status("POST", "/v1/files/file-1") == 405
    assert status("GET", "/v1/files/file-1/other") == 404
    assert status("DELETE", "/v1/batches") == 405
    assert status("GET", "/v1/files/..%2f..%2fetc") == 404
    assert status("GET", "/v1/batches/batch_0") == 404
    assert status("GET", "/v1/files?limit=x") == 400


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_another_gateway_goes_on_where_one_ended(tmp_path: Path, how: signal.Signals) -> None:
    """And asks for nothing again that the first had the answer of, nor loses any."""
    spool = tmp_path / "spool"
    with running_engine(tmp_path / "e.sock", "m", fake_rate=200) as engine:

        @with_a_gateway(tmp_path, spool, engine)
        def first(stack: Stack, client: openai.OpenAI) -> str:
            batch = order(client, "m", *(str(number) for number in range(300)))
            until(lambda: client.batches.retrieve(batch.id).request_counts.completed >= 40, 15)  # type: ignore[union-attr]
            stack.process.send_signal(how)
            assert stack.process.wait(10) == (-how if how == signal.SIGKILL else 0)
            return str(batch.id)

        before = engine.get("/fake/info").json()["received"]
        assert 40 <= before < 300

        @with_a_gateway(tmp_path, spool, engine)
        def second(stack: Stack, client: openai.OpenAI) -> list[str]:
            batch = finished(client, first, 30)
            return client.files.content(batch.output_file_id).text.splitlines()

        assert len({json.loads(line)["custom_id"] for line in second}) == len(second) == 300
        received = engine.get("/fake/info").json()["received"]
        assert received <= 300 + 8  # those that were under way


def with_a_gateway(folder: Path, spool: Path, engine: FakeEngine) -> Callable[..., Any]:
    """Runs a function with a gateway of its own, at once; its name becomes its result."""

    def run(work: Callable[[Stack, openai.OpenAI], Any]) -> Any:
        place = folder / work.__name__
        place.mkdir()
        replica = Replica("m-0", f"unix:{engine.socket}")
        roster = Roster(1, (ServedModel("m", (), "ready", 4096, 7, (replica,)),))
        with (
            running_gateway(place, roster, spool_folder=str(spool)) as stack,
            openai_client(stack, "none") as client,
        ):
            return work(stack, client)

    return run


def test_off_unless_the_operator_wants_it(tmp_path: Path) -> None:
    with running_gateway(tmp_path, Roster()) as stack, openai_client(stack, "none") as client:
        with pytest.raises(openai.PermissionDeniedError, match=r"server\.batches"):
            client.files.list()
        with pytest.raises(openai.PermissionDeniedError, match=r"server\.batches"):
            client.batches.list()


def test_tenants_do_not_see_each_other(tmp_path: Path) -> None:
    texts = {"a": "key-of-a", "a2": "another-of-a", "b": "key-of-b"}
    keys = tuple(Key(id, digest_key(text), id[0]) for id, text in texts.items())
    roster = Roster(1, keys=keys, is_open=False)
    with running_gateway(tmp_path, roster, spool_folder=str(tmp_path / "spool")) as stack:
        mine, colleague, other = (openai_client(stack, text) for text in texts.values())
        batch = order(mine, "m", "x")
        assert [one.id for one in colleague.batches.list()] == [batch.id]
        assert colleague.files.retrieve(batch.input_file_id).filename == "in.jsonl"
        assert not list(other.batches.list()) and not list(other.files.list())
        for deed in (
            lambda: other.batches.retrieve(batch.id),
            lambda: other.batches.cancel(batch.id),
            lambda: other.files.retrieve(batch.input_file_id),
            lambda: other.files.content(batch.input_file_id),
            lambda: other.files.delete(batch.input_file_id),
            lambda: other.batches.create(
                input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                deed()
        assert finished(mine, batch.id).request_counts.failed == 1
        for client in (mine, colleague, other):
            client.close()


def test_another_supervisor_reads_nothing(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with running_gateway(tmp_path, Roster(), spool_folder=str(spool)) as stack:
        with openai_client(stack, "none") as client:
            client.files.create(file=jsonl("m", "x"), purpose="batch")
            assert len(list(client.files.list())) == 1
        stack.control.spool_key = bytes(range(32))
        until(lambda: [path.name for path in spool.iterdir()] == ["spool.lock"], 15)
        assert stack.client.get("/v1/files").json()["data"] == []
