"""`inhouse key`: made, listed, rotated, revoked; with a supervisor and without."""

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from serve.control import serve_control
from serve.ledger import Books, Desk
from serve.quota import Key
from tests.cli.conftest import Inhouse
from tests.control.test_control import FACTS, FakeFleet

FULL = (
    "--tenant", "research", "--name", "bob", "--models", "qwen*,llama-3", "--rpm", "600",
    "--tpm", "2M", "--concurrency", "4", "--tokens", "5M/day,100M/month", "--budget", "20/day",
    "--budget", "500.5/month", "--expires", "90d", "--scope", "inference,metrics",
    "--priority", "batch",
)  # fmt: skip


@dataclass
class Doorkeeper:
    """What a supervisor would tell its gateways."""

    heard: list[tuple[Key, ...] | None] = field(default_factory=list)


@pytest.fixture
def supervisor(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doorkeeper]:
    """A control over the ledger of this home, as `inhouse serve` has it."""
    run = tmp_path / "run"
    monkeypatch.setenv("INHOUSE_RUN", str(run))
    keeper, is_up, over = Doorkeeper(), threading.Event(), threading.Event()
    books = Books.open(None, home)

    async def control() -> None:
        desk, socket = Desk(books, keeper.heard.append), run / "control.sock"
        await desk.refresh()
        async with serve_control(socket, FakeFleet(), lambda: FACTS, lambda force: None, desk):
            is_up.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(control(),))
    thread.start()
    is_up.wait()
    yield keeper
    over.set()
    thread.join()
    books.close()


def test_a_key_is_shown_once_and_alone_on_stdout(inhouse: Inhouse, home: Path) -> None:
    made = inhouse("key", "create", *FULL)
    assert made.code == 0 and made.out.count("\n") == 1 and made.out.startswith("ih-")
    text = made.out.strip()
    assert text not in made.err and "research" in made.err and "only now" in made.err
    listed = inhouse("key", "ls")
    assert text.split("-")[1] in listed.out and text.split("-")[2] not in listed.out
    (card,) = json.loads(inhouse("key", "ls", "--json").out)
    assert card["limits"] == {
        "rpm": 600, "tpm": 2_000_000, "concurrency": 4, "tokens_per_day": 5_000_000,
        "tokens_per_month": 100_000_000, "nanos_per_day": 20 * 10**9,
        "nanos_per_month": 500_500_000_000,
    }  # fmt: skip
    assert card["models"] == ["qwen*", "llama-3"] and card["scopes"] == ["inference", "metrics"]
    assert card["priority"] == "batch" and card["state"] == "active" and "digest" not in card
    for word in ("600 requests/min", "budget 20/day", "budget 500.5/month", "qwen*, llama-3"):
        assert word in listed.out
    kept = [file.read_bytes() for file in home.rglob("*") if file.is_file()]
    assert not any(text.split("-")[2].encode() in content for content in kept)


def test_rotation_and_revocation(inhouse: Inhouse) -> None:
    old = inhouse("key", "create", "--tenant", "t", "--name", "n").out.strip()
    new = inhouse("key", "rotate", "n", "--overlap", "1h").out.strip()
    assert new.startswith("ih-") and new != old
    cards = {card["id"]: card for card in json.loads(inhouse("key", "ls", "--json").out)}
    assert cards[old.split("-")[1]]["replaced_by"] == new.split("-")[1]
    assert cards[old.split("-")[1]]["state"] == "rotated"
    assert inhouse("key", "revoke", "n").code == 0
    assert (
        json.loads(inhouse("key", "revoke", old.split("-")[1], "--json").out)["state"] == "revoked"
    )
    assert inhouse("key", "ls").out == ""
    assert len(json.loads(inhouse("key", "ls", "--all", "--json").out)) == 2
    assert inhouse("key", "rotate", old.split("-")[1]).code == 2
    actions = [record["action"] for record in json.loads(inhouse("audit", "ls", "--json").out)]
    assert actions == ["key.create", "key.rotate", "key.revoke", "key.revoke"]


def test_show_finds_typos(inhouse: Inhouse, monkeypatch: pytest.MonkeyPatch) -> None:
    text = inhouse("key", "create", "--tenant", "t", "--name", "n").out.strip()

    def show(typed: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed + "\n"))
        ran = inhouse("key", "show", "-")
        assert text[-20:] not in ran.out + ran.err
        return ran.code, ran.out + ran.err

    assert show(text)[0] == 0 and text.split("-")[1] in show(text)[1]
    wrong = text[:-9] + ("x" if text[-9] != "x" else "y") + text[-8:]
    assert show(wrong)[0] == 2 and "typo" in show(wrong)[1]
    assert show("sk-something")[0] == 2
    assert inhouse("key", "show", "n", "--json").code == 0
    assert "tenant" in inhouse("key", "show", "n").out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--rpm", "many"), "--rpm"), (("--tpm", "0"), "--tpm"), (("--rpm", "nan"), "--rpm"),
        (("--tokens", "5M"), "--tokens"), (("--tokens", "5M/week"), "--tokens"),
        (("--budget", "x/day"), "--budget"), (("--budget", "1/day,2/day"), "twice"),
        (("--budget", "-1/day"), "--budget"), (("--budget", "inf/day"), "--budget"),
        (("--expires", "soon"), "--expires"), (("--expires", "2001-01-01"), "past"),
        (("--scope", "root"), "--scope"), (("--priority", "now"), "--priority"),
        (("--name", "a\nb"), "printed"),
    ],
)  # fmt: skip
def test_terms_that_are_none_are_refused(
    inhouse: Inhouse, arguments: tuple[str, ...], word: str
) -> None:
    ran = inhouse("key", "create", "--tenant", "t", *arguments)
    assert ran.code == 2 and word in ran.err and ran.out == ""
    assert json.loads(inhouse("key", "ls", "--all", "--json").out) == []


def test_strangers(inhouse: Inhouse) -> None:
    assert inhouse("key", "create").code == 2
    for verb in ("show", "revoke", "rotate"):
        ran = inhouse("key", verb, "nobody")
        assert ran.code == 2 and "no such key: nobody" in ran.err


def test_a_supervisor_tells_its_gateways(inhouse: Inhouse, supervisor: Doorkeeper) -> None:
    assert supervisor.heard == [None]
    text = inhouse("key", "create", "--tenant", "t", "--name", "n").out.strip()
    assert [key.id for key in supervisor.heard[-1] or ()] == [text.split("-")[1]]
    made = json.loads(inhouse("key", "rotate", "n", "--json").out)
    assert made["text"].split("-")[1] == made["key"]["id"]
    assert len(supervisor.heard[-1] or ()) == 2
    assert inhouse("key", "revoke", "n").code == 0
    assert [key.id for key in supervisor.heard[-1] or ()] == [text.split("-")[1]]
    assert inhouse("key", "revoke", "stranger").code == 2
    records = json.loads(inhouse("audit", "ls", "--json").out)
    assert {record["actor"].split(":")[0] for record in records} == {"cli"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpcore's
def test_a_socket_that_nobody_serves_does_not_stop_us(
    inhouse: Inhouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "control.sock").touch()
    monkeypatch.setenv("INHOUSE_RUN", str(tmp_path / "run"))
    assert inhouse("key", "create", "--tenant", "t").code == 0
