"""`/admin/…` through a gateway that a real control and a real ledger stand behind."""

import asyncio
import json
import socket as sockets
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from serve.control import serve_control
from serve.errors import DoesNotFit, UnknownModel
from serve.ledger import Books, Deed, Desk
from serve.quota import Key
from serve.roster import Roster
from tests.control.test_control import FACTS, FakeFleet
from tests.gateway.stack import running_gateway, until

ADMIN = Key("", "", "ops", "boss", ("inference", "admin"))


@dataclass
class Fleet(FakeFleet):
    """Also knows who may enter."""

    def set_keys(self, keys: tuple[Key, ...] | None) -> None:
        self.roster = replace(self.roster, keys=keys or (), is_open=keys is None)
        self.changed.set()


@dataclass
class Office:
    """A control, a ledger and a gateway; `admin`, `clerk`: clients with keys."""

    fleet: Fleet
    books: Books
    admin: httpx.Client
    clerk: httpx.Client


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    books, fleet = Books.open(None, folder / "home"), Fleet()
    boss = books.keys.create(ADMIN, Deed(actor="cli:0"))
    clerk = books.keys.create(replace(ADMIN, name="clerk", scopes=("inference",)), Deed())
    socket, is_up, over = folder / "control.sock", threading.Event(), threading.Event()

    async def control() -> None:
        desk = Desk(books, fleet.set_keys)
        await desk.refresh()
        async with serve_control(socket, fleet, lambda: FACTS, lambda force: None, desk):
            is_up.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(control(),))
    thread.start()
    is_up.wait()
    with sockets.create_server(("127.0.0.1", 0)) as listener:
        url = "http://{}:{}".format(*listener.getsockname())
        told = json.dumps({"fd": listener.fileno(), "control": str(socket)})
        argv = [sys.executable, "-m", "serve.gateway", told]
        process = subprocess.Popen(argv, pass_fds=(listener.fileno(),))
    clients = [
        httpx.Client(base_url=url, timeout=30, headers={"authorization": f"Bearer {key.text}"})
        for key in (boss, clerk)
    ]
    try:
        yield Office(fleet, books, *clients)
    finally:
        for client in clients:
            client.close()
        process.kill()
        process.wait()
        over.set()
        thread.join()
        books.close()


def test_the_state_of_the_house(office: Office) -> None:
    status = office.admin.get("/admin/status").json()
    assert status["address"] == FACTS.address and status["models"][0]["name"] == "m"


def test_keys_are_made_used_rotated_and_revoked(office: Office) -> None:
    made = office.admin.post("/admin/keys", json={"tenant": "t", "name": "n"})
    assert made.status_code == 200 and made.headers["content-type"] == "application/json"
    text, card = made.json()["text"], made.json()["key"]
    headers = {"authorization": f"Bearer {text}"}
    until(lambda: office.clerk.get("/v1/models", headers=headers).status_code == 200)
    assert card in office.admin.get("/admin/keys").json()
    assert office.admin.get(f"/admin/keys/{card['id']}").json() == card
    rotated = office.admin.post(f"/admin/keys/{card['id']}/rotate", json={"overlap_s": 60})
    assert rotated.json()["key"]["name"] == "n"
    gone = office.admin.post(f"/admin/keys/{card['id']}/revoke")
    assert gone.json()["state"] == "revoked"
    until(lambda: office.clerk.get("/v1/models", headers=headers).status_code == 401)
    found = office.admin.get("/admin/audit", params={"action": "key.*", "last": 3}).json()
    assert [record["action"] for record in found] == ["key.create", "key.rotate", "key.revoke"]
    boss = office.books.keys.find("boss").key.id
    assert {record["actor"] for record in found} == {f"key:{boss}"}
    assert {record["address"] for record in found} == {"127.0.0.1"}
    assert all(record["request"] for record in found)
    assert office.books.audit.verify().count


def test_models_are_loaded_and_unloaded(office: Office) -> None:
    loaded = office.admin.post("/admin/models/load", json={"model": "qwen"})
    assert loaded.json()["name"] == "qwen"
    assert office.admin.post("/admin/models/unload", json={"model": "qwen"}).json() is None
    assert office.fleet.unloaded == ["qwen"]


def test_usage_is_summed_up(office: Office) -> None:
    (whole,) = office.admin.get("/admin/usage").json()
    assert whole["requests"] == 0 and whole["group"] == {}
    assert office.admin.get("/admin/usage?by=key,model&since=5").json() == []
    for query in ("by=sql", "since=x", "key=k"):
        assert failed(office.admin.get(f"/admin/usage?{query}")) == (400, "bad_request")


def failed(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_refusal_is_told_in_the_words_of_the_api(office: Office) -> None:
    post = office.admin.post
    assert failed(post("/admin/keys/nobody/revoke"))[0] == 404
    assert failed(post("/admin/keys", json={"tenant": "t", "rmp": 5})) == (400, "bad_request")
    assert failed(post("/admin/keys", json={"tenant": "t", "expires_at": 5}))[0] == 400
    assert failed(post("/admin/keys", content=b"x" * 100_000)) == (413, "body_too_large")
    heir = {"tenant": "t", "scopes": ["admin"]}
    assert failed(post("/admin/keys", json=heir)) == (403, "forbidden")
    for error, expected in (
        (UnknownModel("x", ("y",)), (404, "model_not_found")),
        (DoesNotFit("m", "cpu", 10, 5), (409, "failed")),
    ):
        office.fleet.load_error = error
        answer = post("/admin/models/load", json={"model": "x"})
        assert failed(answer) == expected
    assert answer.json()["error"]["facts"]["needed_bytes"] == 10
    office.fleet.load_error = None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/admin/", 404), ("GET", "/admin/stop", 404), ("POST", "/admin/stop", 404),
        ("GET", "/admin/roster", 404), ("GET", "/admin/../roster", 404),
        ("GET", "/admin/keys/../../roster", 404), ("GET", "/admin/keys/a%2f..%2fb", 404),
        ("GET", "/admin/keys/A", 404), ("DELETE", "/admin/keys", 405),
        ("POST", "/admin/status", 405), ("GET", "/admin/keys/x/revoke", 405),
        ("GET", "/admin/audit?sql=1", 400), ("GET", "/admin/keys?x", 400),
        ("GET", "/admin/audit?last=0", 400), ("GET", "/admin/audit?last=%ff", 400),
        ("GET", "/admin/keys%0d%0ahost:x", 404),
    ],
)  # fmt: skip
def test_nothing_else_is_passed_on(office: Office, method: str, path: str, status: int) -> None:
    url = httpx.URL(str(office.admin.base_url)).copy_with(raw_path=path.encode())
    assert office.admin.request(method, url).status_code == status


def test_without_the_scope_nothing_is_told(office: Office) -> None:
    before = len(list(office.books.audit.records()))
    for method, path in (
        ("GET", "/admin/status"), ("GET", "/admin/keys"), ("POST", "/admin/keys"),
        ("GET", "/admin/audit"), ("POST", "/admin/models/load"), ("GET", "/admin/nowhere"),
    ):  # fmt: skip
        answer = office.clerk.request(method, path, json={"tenant": "t", "model": "m"})
        assert failed(answer) == (403, "forbidden")
    assert len(list(office.books.audit.records())) == before


def test_a_client_cannot_say_who_it_is(office: Office) -> None:
    headers = {"x-inhouse-actor": "cli:0", "x-inhouse-address": "8.8.8.8", "x-request-id": "mine"}
    office.admin.post("/admin/keys", json={"tenant": "spoof"}, headers=headers)
    (record,) = office.books.audit.records(action="key.create", last=1)
    assert record.facts["tenant"] == "spoof"
    assert record.actor.startswith("key:") and record.address == "127.0.0.1"
    assert record.request != "mine"


def test_without_keys_there_is_no_administrator(tmp_path: Path) -> None:
    with running_gateway(tmp_path, Roster()) as stack:
        for path in ("/admin/status", "/admin/keys"):
            assert stack.client.get(path).status_code == 401
