"""Keys and the audit log over `control.sock`: from a change to a gateway that refuses."""

import asyncio
import json
import socket as sockets
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from serve.control import Client, serve_control
from serve.errors import (
    AuditBroken,
    BadRequest,
    ControlLost,
    Forbidden,
    SettingsError,
    UnknownKey,
    UnknownModel,
)
from serve.ledger import Books, Deed, Desk
from serve.quota import Key, Limits
from serve.wire import from_wire
from tests.control.test_control import FACTS, FakeFleet

T = TypeVar("T")
TERMS = Key("", "", "research", "bob", models=("q*",), limits=Limits(rpm=5, nanos_per_day=7))
REMOTE = {"x-inhouse-actor": "key:k9", "x-inhouse-address": "10.0.0.9", "x-request-id": "r9"}


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    opened = Books.open(None, tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


class Fleet(FakeFleet):
    """Also knows who may enter."""

    def set_keys(self, keys: tuple[Key, ...] | None) -> None:
        version = self.roster.version + 1
        self.roster = replace(self.roster, keys=keys or (), is_open=keys is None, version=version)
        self.changed.set()


@asynccontextmanager
async def serving(socket: Path, fleet: Fleet, books: Books) -> AsyncIterator[Desk]:
    desk = Desk(books, fleet.set_keys)
    await desk.refresh()
    async with serve_control(socket, fleet, lambda: FACTS, lambda force: None, desk):
        yield desk


def served(socket: Path, books: Books, ask: Callable[[Client], T], fleet: Fleet | None = None) -> T:
    async def run() -> T:
        async with serving(socket, fleet or Fleet(), books):
            return await asyncio.to_thread(ask, Client(socket))

    return asyncio.run(run())


def told(
    socket: Path, books: Books, *requests: tuple[str, str, Any], fleet: Fleet | None = None
) -> list[Any]:
    """Answers to requests (method, path, body), or the errors that came instead."""

    async def run() -> list[Any]:
        async with serving(socket, fleet or Fleet(), books):
            transport = httpx.AsyncHTTPTransport(uds=str(socket))
            async with httpx.AsyncClient(transport=transport, headers=REMOTE) as client:
                return [await one(client, *request) for request in requests]

    async def one(client: httpx.AsyncClient, method: str, path: str, body: Any) -> Any:
        answer = await client.request(method, f"http://control{path}", json=body)
        return answer.json() if answer.is_success else from_wire(answer.json())

    return asyncio.run(run())


def test_a_key_is_made_changed_and_taken_back(socket: Path, books: Books) -> None:
    fleet = Fleet()

    def ask(client: Client) -> list[dict[str, Any]]:
        made = client.create_key(TERMS)
        assert len(fleet.roster.keys) == 1 and not fleet.roster.is_open
        return [made, client.rotate_key("bob", 60), client.revoke_key(made["key"]["id"])]

    made, new, gone = served(socket, books, ask, fleet)
    assert made["key"]["limits"]["rpm"] == 5 and made["key"]["models"] == ["q*"]
    assert "digest" not in made["key"]
    assert books.keys.find_text(new["text"]).key.id == new["key"]["id"]
    assert gone["state"] == "revoked" and gone["replaced_by"] == new["key"]["id"]
    assert [key.id for key in fleet.roster.keys] == [new["key"]["id"]]
    records = list(books.audit.records())
    assert [r.action for r in records] == ["key.create", "key.rotate", "key.revoke"]
    assert all(r.actor.startswith("cli:") for r in records)


def test_errors_come_back_as_they_were(socket: Path, books: Books) -> None:
    with pytest.raises(UnknownKey):
        served(socket, books, lambda client: client.revoke_key("a/../b?c"))
    with pytest.raises(SettingsError):
        served(socket, books, lambda client: client.create_key(replace(TERMS, tenant="")))


def test_an_open_house_closes_with_the_first_key_and_never_opens_again(
    socket: Path, books: Books
) -> None:
    fleet = Fleet()
    served(socket, books, lambda client: None, fleet)
    assert fleet.roster.is_open

    def ask(client: Client) -> None:
        made = client.create_key(TERMS)
        client.revoke_key(made["key"]["id"])

    served(socket, books, ask, fleet)
    assert fleet.roster.keys == () and not fleet.roster.is_open


def test_what_is_asked_from_afar_is_recorded_so(socket: Path, books: Books) -> None:
    wish = {"tenant": "t", "limits": {"tpm": 9}, "scopes": ["metrics"], "expires_at": 9e9}
    made, cards, all_of_it = told(
        socket, books, ("POST", "/keys", wish), ("GET", "/keys", None),
        ("GET", "/audit?last=5&action=key.*", None),
    )  # fmt: skip
    (card,) = cards
    assert card == made["key"] and made["text"].startswith(f"ih-{card['id']}-")
    (record,) = all_of_it
    assert (record["actor"], record["address"], record["request"]) == ("key:k9", "10.0.0.9", "r9")
    (one,) = told(socket, books, ("GET", f"/keys/{card['id']}", None))
    assert one == card


def test_no_key_makes_an_administrator(socket: Path, books: Books) -> None:
    wish = {"tenant": "t", "name": "heir", "scopes": ["inference", "admin"]}
    (answer,) = told(socket, books, ("POST", "/keys", wish))
    assert isinstance(answer, Forbidden) and books.keys.all() == ()
    (record,) = books.audit.records()
    assert (record.action, record.object, record.result) == ("key.create", "heir", "refused")
    made = served(
        socket, books, lambda client: client.create_key(replace(TERMS, scopes=("admin",)))
    )
    assert made["key"]["scopes"] == ["admin"]  # who owns the socket may


BAD_BODIES: tuple[tuple[str, Any], ...] = (
    ("/keys", {}), ("/keys", {"tenant": 5}), ("/keys", {"tenant": "t", "rmp": 5}),
    ("/keys", {"tenant": "t", "limits": {"rmp": 5}}), ("/keys", []),
    ("/keys", {"tenant": "t", "limits": {"rpm": 0}}),
    ("/keys", {"tenant": "t", "scopes": ["root"]}),
    ("/keys", {"tenant": "t", "digest": "x"}), ("/keys", {"tenant": "t", "id": "x"}),
    ("/keys/x/rotate", {"overlap_s": -1}), ("/keys/x/revoke", {"force": True}),
)  # fmt: skip
BAD_QUERIES = ("last=0", "last=x", "sql=1", "last=99999999", "since=x")


def test_bodies_and_queries_are_read_strictly(socket: Path, books: Books) -> None:
    posts = [("POST", path, body) for path, body in BAD_BODIES]
    gets = [("GET", f"/audit?{query}", None) for query in BAD_QUERIES]
    gets.append(("GET", "/usage?by=sql", None))
    for answer in told(socket, books, *posts, *gets):
        assert isinstance(answer, BadRequest), answer
    assert list(books.audit.records()) == []


def test_what_control_does_is_recorded_before_and_after(socket: Path, books: Books) -> None:
    served(socket, books, lambda client: client.load("m"))
    served(socket, books, lambda client: client.unload("m"))
    with pytest.raises(UnknownModel):
        served(socket, books, lambda c: c.load("x"), Fleet(load_error=UnknownModel("x")))
    told(socket, books, ("POST", "/stop", {}))
    said = [(r.action, r.object, r.result) for r in books.audit.records()]
    assert said == [
        ("model.load", "m", "asked"), ("model.load", "m", "ok"),
        ("model.unload", "m", "asked"), ("model.unload", "m", "ok"),
        ("model.load", "x", "asked"), ("model.load", "x", "failed"),
        ("serve.stop", "", "asked"), ("serve.stop", "", "ok"),
    ]  # fmt: skip
    failed = list(books.audit.records())[5]
    assert failed.facts == {"error": "UnknownModel"} and failed.actor.startswith("cli:")


def test_what_cannot_be_recorded_is_refused(socket: Path, books: Books, tmp_path: Path) -> None:
    books.audit.append_many([])
    served(socket, books, lambda client: client.create_key(TERMS))
    (tmp_path / "home" / "audit.key").unlink()
    fleet = Fleet()
    answers = told(
        socket, books, ("POST", "/load", {"model": "m"}), ("POST", "/unload", {"model": "m"}),
        ("POST", "/keys", {"tenant": "t"}), ("POST", "/keys/bob/revoke", {}),
        ("POST", "/keys/bob/rotate", {}), ("POST", "/stop", {}), fleet=fleet,
    )  # fmt: skip
    assert all(isinstance(answer, AuditBroken) for answer in answers), answers
    assert fleet.unloaded == [] and len(books.keys.all()) == 1
    assert books.keys.find("bob").revoked_at is None
    (forced,) = told(socket, books, ("POST", "/stop", {"force": True}))
    assert forced is None  # the last way out stays open


def test_changes_by_others_are_noticed(socket: Path, books: Books, tmp_path: Path) -> None:
    fleet, other = Fleet(), Books.open(None, tmp_path / "home")

    async def run() -> None:
        async with serving(socket, fleet, books) as desk:
            following = asyncio.create_task(desk.follow(every_s=0.01))
            made = await asyncio.to_thread(other.keys.issue, TERMS, Deed(actor="cli:1"))
            while [key.id for key in fleet.roster.keys] != [made["key"]["id"]]:
                await fleet.changed.wait()
                fleet.changed.clear()
            following.cancel()

    asyncio.run(run())
    other.close()


@contextmanager
def gateway(control: Path) -> Iterator[str]:
    """A real gateway process that follows whoever answers at `control`."""
    with sockets.create_server(("127.0.0.1", 0)) as listener:
        told = json.dumps({"fd": listener.fileno(), "control": str(control)})
        url = "http://{}:{}".format(*listener.getsockname())
        process = subprocess.Popen(
            [sys.executable, "-m", "serve.gateway", told], pass_fds=(listener.fileno(),)
        )
    try:
        yield url
    finally:
        process.kill()
        process.wait()


def test_a_revoked_key_is_refused_by_a_real_gateway_at_once(
    socket: Path, books: Books, record_property: Callable[[str, object], None]
) -> None:
    """Measured from the wish to the first refusal: the median is reported."""
    took: list[float] = []

    def ask(control: Client) -> None:
        with gateway(socket) as url, httpx.Client(base_url=url, timeout=30) as client:

            def status(text: str) -> int:
                headers = {"authorization": f"Bearer {text}"}
                return client.get("/v1/models", headers=headers).status_code

            for _ in range(7):
                made = control.create_key(replace(TERMS, name=""))
                while status(made["text"]) != 200:
                    pass
                began = time.monotonic()
                control.revoke_key(made["key"]["id"])
                while status(made["text"]) != 401:
                    assert time.monotonic() - began < 10
                took.append(time.monotonic() - began)

    served(socket, books, ask)
    record_property("median_ms", 1000 * statistics.median(took))
    sys.stderr.write(f"revoked after {1000 * statistics.median(took):.1f} ms (median of 7)\n")
    assert statistics.median(took) < 1


def test_without_a_ledger_there_are_no_keys(socket: Path) -> None:
    async def run() -> None:
        async with serve_control(socket, FakeFleet(), lambda: FACTS, lambda force: None):
            with pytest.raises(ControlLost):
                await asyncio.to_thread(Client(socket).create_key, TERMS)

    asyncio.run(run())
