"""Servers of somebody else behind TLS: who is believed, and what becomes of a request if nobody."""

import contextlib
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from serve.roster import Replica, Roster
from tests.fakes.tls_front import running_tls
from tests.gateway.stack import FakeEngine, Stack, running_engine, running_gateway, until

MARK = "zebra-4711"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stack(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with believing(authority, tmp_path_factory.mktemp("gw")) as stack:
        yield stack


@contextlib.contextmanager
def believing(authority: trustme.CA, folder: Path) -> Iterator[Stack]:
    """A gateway that believes `authority`, as its operator has said."""
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        with running_gateway(folder, Roster()) as stack:
            yield stack


@contextlib.contextmanager
def upstream(
    stack: Stack, shown: trustme.LeafCert, url: str = "https://localhost:{}", **knobs: object
) -> Iterator[FakeEngine]:
    """A model that a server with this certificate serves; its name is "theirs"."""
    socket = stack.folder / "theirs.sock"
    with running_engine(socket, "theirs", **knobs) as engine, running_tls(socket, shown) as port:
        stack.serve_at("theirs", Replica("theirs-0", url.format(port)))
        yield engine
        stack.forget("theirs")


def ask(stack: Stack, **more: object) -> httpx.Response:
    messages = [{"role": "user", "content": MARK}]
    return stack.post({"model": "theirs", "messages": messages, **more})


def test_a_server_with_a_good_certificate_answers(stack: Stack, authority: trustme.CA) -> None:
    with upstream(stack, authority.issue_cert("localhost"), fake_chunks=300) as engine:
        for _ in range(3):  # also over a connection that is there already
            assert ask(stack, max_tokens=5).json()["usage"]["completion_tokens"] == 5
        host = engine.last()["headers"]["host"]
        assert host.startswith("localhost:")
        told = ask(stack, stream=True).text
        events = [line for line in told.splitlines() if line.startswith("data: ")]
        assert events[-1] == "data: [DONE]" and len(events) > 300
        long = ask(stack, messages=[{"role": "user", "content": MARK * 50_000}])
        assert long.status_code in (200, 400) and "theirs" in long.text


def test_an_address_may_be_a_number(stack: Stack, authority: trustme.CA) -> None:
    with upstream(stack, authority.issue_cert("127.0.0.1"), "https://127.0.0.1:{}"):
        assert ask(stack).status_code == 200


def test_a_client_that_leaves_ends_the_work_there(stack: Stack, authority: trustme.CA) -> None:
    shown = authority.issue_cert("localhost")
    with upstream(stack, shown, fake_rate=5, fake_chunks=500) as engine:
        body = {"model": "theirs", "messages": [], "stream": True}
        url = f"{stack.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body) as answer:
            assert "data" in next(answer.iter_lines())
        until(lambda: engine.running() == 0)
        assert engine.get("/fake/info").json()["aborted"] == 1


def test_a_server_that_dies_in_a_stream_ends_it_with_an_error(
    stack: Stack, authority: trustme.CA
) -> None:
    with upstream(stack, authority.issue_cert("localhost"), fake_cut_after=2):
        last = ask(stack, stream=True).text.strip().splitlines()[-1]
        assert "error" in json.loads(last.removeprefix("data: "))


def expired(authority: trustme.CA) -> trustme.LeafCert:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    return authority.issue_cert("localhost", not_after=yesterday)


BY_NAME, BY_NUMBER = "https://localhost:{}", "https://127.0.0.1:{}"


@pytest.mark.parametrize(
    ("make", "url", "reason"),
    [
        (lambda authority: trustme.CA().issue_cert("localhost"), BY_NAME, "unable to get local"),
        (lambda authority: authority.issue_cert("elsewhere.test"), BY_NAME, "Hostname mismatch"),
        (lambda authority: authority.issue_cert("localhost"), BY_NUMBER, "IP address mismatch"),
        (expired, BY_NAME, "certificate has expired"),
    ],
    ids=["unknown authority", "another name", "a number for a name", "expired"],
)
def test_a_server_that_is_not_believed_gets_no_request_and_the_log_says_why(
    authority: trustme.CA,
    make: Callable[[trustme.CA], trustme.LeafCert],
    url: str,
    reason: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with believing(authority, tmp_path) as stack, upstream(stack, make(authority), url) as engine:
        for more in ({}, {"stream": True}):
            answer = ask(stack, **more)
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_gone")
        assert engine.last() == {}
    said = capfd.readouterr().err
    assert f"not reached address={url.format('')}" in said and reason in said
    assert MARK not in said


def test_without_tls_it_is_not_spoken_to(stack: Stack, authority: trustme.CA) -> None:
    with upstream(stack, authority.issue_cert("localhost"), "http://localhost:{}") as engine:
        assert ask(stack).status_code == 502
        assert engine.last() == {}
