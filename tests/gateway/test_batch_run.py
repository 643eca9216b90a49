"""Batches against an engine that is a function: each line once, whatever happens when."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve.errors import EngineGone, ModelNotServed, RateLimited
from serve.gateway import batch_book as book
from serve.gateway import files
from serve.gateway.batch_asking import Asking
from serve.gateway.batch_run import Run
from serve.gateway.batch_runner import Runner, keep_house
from serve.gateway.door import Caller
from serve.gateway.exchange import Request
from serve.gateway.served import Served
from serve.gateway.spool import Spool, new_id
from serve.quota import Key, Tenant
from serve.roster import Roster

CHAT = "/v1/chat/completions"
OPEN = Roster()
KEY = bytes(range(32))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", KEY)


class Engine:
    """Plays the relay. `told(text, times)`: what becomes of a request whose prompt is `text` and
    which has come `times` times: a status, or an error to raise."""

    def __init__(self, told: Callable[[str, int], int | Exception] = lambda text, times: 200):
        self.told = told
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.callers: list[Caller] = []
        self.most = self.now = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def carry(self, request: Request) -> None:
        body = json.loads((await request.receive())["body"])
        text = body["prompt"]
        self.asked[text] += 1
        self.callers.append(request.caller)
        assert request.priority == "batch"
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.now -= 1
        told = self.told(text, self.asked[text])
        if isinstance(told, Exception):
            raise told
        content = json.dumps({"echo": text, "id": request.id.decode()}).encode()
        await request.send({"type": "http.response.start", "status": told, "headers": []})
        await request.send({"type": "http.response.body", "body": content, "more_body": False})
        self.answered[text] += 1
        assert (await request.receive())["type"] == "http.disconnect"


def order(spool: Spool, *texts: str, raw: bytes | None = None, **more: Any) -> book.Order:
    rows = [
        {"custom_id": f"id-{text}", "method": "POST", "url": CHAT, "body": {"prompt": text}}
        for text in texts
    ]
    content = raw if raw is not None else "\n".join(json.dumps(row) for row in rows).encode()
    file = files.keep(spool, "t", "in.jsonl", len(content), [content])
    now = int(time.time())
    about: dict[str, Any] = {"key": "", "created_at": now, "expires_at": now + 60} | more
    made = book.Order(new_id("batch"), "", endpoint=CHAT, input_file_id=file.id,
                      completion_window="24h", **about)  # fmt: skip
    book.write_order(spool, made)
    return made


def asking(engine: Engine, roster: Roster = OPEN) -> Asking:
    return Asking(Served(roster), engine.carry)


async def run(spool: Spool, order: book.Order, engine: Engine, roster: Roster = OPEN) -> None:
    await Run(spool, order, asking(engine, roster), asyncio.Semaphore(16)).run()


def answers(spool: Spool, id: str | None) -> dict[str, dict[str, Any]]:
    assert id is not None
    text = b"".join(files.content(spool, id)).decode()
    card = files.read_card(spool, id)
    assert card is not None and card.bytes == len(text.encode())
    rows = [json.loads(line) for line in text.splitlines()]
    return {row["custom_id"]: row for row in rows}


def test_each_line_has_its_answer(spool: Spool) -> None:
    engine = Engine(lambda text, times: 400 if text == "bad" else 200)
    made = order(spool, "a", "bad", *(str(number) for number in range(40)))
    asyncio.run(run(spool, made, engine))
    progress = book.read_progress(spool, made.id)
    assert (progress.status, progress.total) == ("completed", 42)
    assert (progress.completed, progress.failed) == (41, 1)
    good = answers(spool, progress.output_file_id)
    assert len(good) == 41 and good["id-a"]["response"]["body"]["echo"] == "a"
    (bad,) = answers(spool, progress.error_file_id).values()
    assert bad["custom_id"] == "id-bad" and bad["response"]["status_code"] == 400
    assert set(engine.asked.values()) == {1} and engine.most == 8
    assert not spool.folder.joinpath(f"{made.id}.log").exists()
    shown = book.shown(made, progress)
    assert shown["request_counts"] == {"total": 42, "completed": 41, "failed": 1}


def test_a_bad_input_fails_before_anything_is_asked(spool: Spool) -> None:
    engine = Engine()
    made = order(spool, raw=b"{nonsense")
    asyncio.run(run(spool, made, engine))
    shown = book.shown(made, book.read_progress(spool, made.id))
    assert shown["status"] == "failed" and shown["errors"]["data"][0]["line"] == 1
    assert shown["output_file_id"] is None and not engine.asked


def test_a_lost_input_fails(spool: Spool) -> None:
    made = order(spool, "a")
    spool.remove(made.input_file_id)
    asyncio.run(run(spool, made, Engine()))
    progress = book.read_progress(spool, made.id)
    assert progress.status == "failed" and progress.errors[0].code == "file_not_found"


@pytest.mark.parametrize("stop_after", [0, 1, 7, 20, 39])
def test_what_is_broken_off_goes_on_and_nothing_finished_is_asked_again(
    spool: Spool, stop_after: int
) -> None:
    made = order(spool, *(str(number) for number in range(40)))
    first, second = Engine(), Engine()

    async def break_off() -> None:
        task = asyncio.create_task(run(spool, made, first))
        while first.answered.total() < stop_after or not first.asked:
            await asyncio.sleep(0)
        first.gate.clear()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(break_off())
    log = spool.log(f"{made.id}.log")
    finished = {int(json.loads(frame)["number"]) - 1 for frame in log.frames()}
    log.close()
    assert len(finished) >= stop_after - 8
    asyncio.run(run(spool, made, second))
    assert set(map(int, second.asked)) == set(range(40)) - finished
    progress = book.read_progress(spool, made.id)
    assert (progress.status, progress.completed) == ("completed", 40)
    assert len(answers(spool, progress.output_file_id)) == 40


def test_a_cancelled_batch_keeps_what_it_has(spool: Spool) -> None:
    made = order(spool, *(str(number) for number in range(30)))
    engine = Engine()

    def told(text: str, times: int) -> int:
        if text == "5":
            spool.mark(f"{made.id}.cancel")
        return 200

    engine.told = told
    asyncio.run(run(spool, made, engine))
    progress = book.read_progress(spool, made.id)
    assert progress.status == "cancelled" and 0 < progress.completed < 30
    assert len(answers(spool, progress.output_file_id)) == progress.completed
    assert progress.at["cancelling"] <= progress.at["cancelled"]


def test_a_batch_can_be_cancelled_before_it_is_read(spool: Spool) -> None:
    made, engine = order(spool, raw=b"{nonsense"), Engine()
    spool.mark(f"{made.id}.cancel")
    assert book.read_progress(spool, made.id).status == "cancelling"
    asyncio.run(run(spool, made, engine))
    assert book.read_progress(spool, made.id).status == "cancelled" and not engine.asked


def test_a_batch_that_is_too_late_says_so_of_each_line(spool: Spool) -> None:
    made = order(spool, "a", "b", expires_at=int(time.time()) - 1)
    engine = Engine()
    asyncio.run(run(spool, made, engine))
    progress = book.read_progress(spool, made.id)
    assert progress.status == "expired" and progress.failed == 2
    rows = answers(spool, progress.error_file_id)
    assert {row["error"]["code"] for row in rows.values()} == {"batch_expired"}


def test_what_has_no_room_now_comes_again(spool: Spool) -> None:
    full = RateLimited("key", "rpm", 1, 0.001)
    gone = EngineGone("m", is_started=False)

    def told(text: str, times: int) -> int | Exception:
        if text == "limited":
            return full if times < 5 else 200
        return {"gone": gone, "never": ModelNotServed("m")}[text]

    engine = Engine(told)
    made = order(spool, "limited", "gone", "never")
    asyncio.run(run(spool, made, engine))
    assert engine.asked == {"limited": 5, "gone": 3, "never": 1}
    progress = book.read_progress(spool, made.id)
    bad = answers(spool, progress.error_file_id)
    codes = {id: row["response"]["body"]["error"]["code"] for id, row in bad.items()}
    assert codes == {"id-gone": "engine_gone", "id-never": "model_not_found"}


def test_lines_are_asked_as_who_ordered_them(spool: Spool) -> None:
    key = Key("k1", "00" * 32, "t")
    tenant = Tenant("t", weight=3)
    roster = Roster(1, keys=(key,), tenants=(tenant,), is_open=False)
    engine = Engine()
    made = order(spool, "a", key="k1")
    asyncio.run(run(spool, made, engine, roster))
    assert engine.callers == [Caller(key, tenant, "")]
    for roster in (Roster(2, is_open=False), Roster(3, keys=(key,), is_open=False)):
        gone = order(spool, "a", key="" if roster.keys else "k1")
        asyncio.run(run(spool, gone, Engine(), roster))
        progress = book.read_progress(spool, gone.id)
        (row,) = answers(spool, progress.error_file_id).values()
        assert row["response"]["status_code"] == 401


def test_one_gateway_runs_them(spool: Spool) -> None:
    engine = Engine()
    made = [order(spool, f"{number}-a", f"{number}-b") for number in range(6)]

    async def both() -> None:
        async def find() -> Spool:
            return spool

        tasks = [asyncio.create_task(Runner(find, asking(engine)).run()) for _ in range(2)]
        while any(book.read_progress(spool, one.id).status != "completed" for one in made):
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(both())
    assert set(engine.asked.values()) == {1} and len(engine.asked) == 12


def test_another_key_of_the_supervisor_forgets_everything(spool: Spool) -> None:
    made = order(spool, "a", expires_at=int(time.time()) + 60)
    other = Spool(spool.folder, bytes(32))

    async def change() -> None:
        async def find() -> Spool:
            return other

        task = asyncio.create_task(Runner(find, asking(Engine())).run())
        while (spool.folder / made.id).exists():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(change())
    assert [path.name for path in spool.folder.iterdir()] == ["spool.lock"]


def test_what_is_old_is_deleted(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    over, running = order(spool, "a"), order(spool, "b")
    asyncio.run(run(spool, over, Engine()))
    now = time.time()
    keep_house(spool)
    assert len(spool.names("file-")) == 3 and len(spool.names("batch_")) == 2
    monkeypatch.setattr(time, "time", lambda: now + files.KEPT_S + 5)
    keep_house(spool)
    assert spool.names("batch_") == [running.id]
    assert spool.names("file-") == [running.input_file_id]
