"""Thousands of requests whose words are marked; then the marks are looked for wherever a process of
the house could have left them. The fakes say each mark backwards, so answers are marked as well.
"""

import asyncio
import gzip
import os
import random
import secrets
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.stack.client import Client, is_up
from tests.stack.deeds import DEEDS, Cage, Texts
from tests.stack.house import House, running_house, until
from tests.stack.search import Search, forms, held_files, own_files, shared_files

_ECHO = "knry"
_WORKERS = 24
_QUIET_S = 60.0
_PLANTING_S = 2.0
_PAUSE_S = 0.05
_KNOBS: dict[str, dict[str, object]] = {
    "quick": {"echo": _ECHO},
    "slow": {"echo": _ECHO, "rate": 60.0, "chunks": 20},
    "failing": {"echo": _ECHO, "error": 500},
    "cutting": {"echo": _ECHO, "cut_after": 3},
    "mortal": {"echo": _ECHO, "die_after_requests": 5},
    "loading": {"echo": _ECHO, "load_s": 1.0},
}
_SETTINGS: dict[str, dict[str, Any]] = {
    "server": {"gateways": 2, "max_body": "200kB", "wait": "3s", "batches": "on"},
    "engine": {"grace": "60s"},
    "log": {"level": "debug"},
    "ledger": {"audit": "all"},
}


@dataclass
class Told:
    """What came of it. `ways`: deeds and the statuses of their answers; `hits`: where marks were
    found; `n_marked`: answers in which an engine said one; `n_places`: that were searched."""

    ways: Counter[tuple[str, str]] = field(default_factory=Counter)
    hits: list[str] = field(default_factory=list)
    n_marked: int = 0
    n_places: int = 0


@dataclass
class Cages:
    """A house under way. `mark`: with it every canary begins."""

    house: House
    texts: Texts
    mark: str
    spans: list[bytes]
    since: float
    told: Told

    @property
    def search(self) -> Search:
        words = {"a prompt": self.mark, "an answer": self.mark[::-1]}
        return Search(words | {f"the key {name}": getattr(self.texts, name) for name in
                               ("admin", "poor", "narrow")})  # fmt: skip

    async def send(self, count: int, dice: random.Random) -> None:
        """So many deeds, by chance; and what hurts in between."""
        names = dice.choices(list(DEEDS), [share for share, _ in DEEDS.values()], k=count)
        names[: len(DEEDS)] = DEEDS if count >= len(DEEDS) else names
        turns = iter(enumerate(names))
        apart = count // (len(_HURTS) + 1)
        hurts = {apart * part: hurt for part, hurt in enumerate(_HURTS, 1)}
        over = {number: asyncio.Event() for number in hurts}

        async def work(client: Client, own: random.Random) -> None:
            for number, name in turns:
                for before, event in over.items():
                    if before < number - apart // 2:  # the others go on meanwhile, but not too far
                        await event.wait()
                if number in hurts:
                    await asyncio.to_thread(hurts[number], self.house)
                    over[number].set()
                while not await self._do(client, own, number, name) and not await is_up(port):
                    await asyncio.sleep(_PAUSE_S)

        port = self.house.port
        clients = [Client(self.house.port) for _ in range(_WORKERS)]
        try:
            await asyncio.gather(*(work(each, random.Random(dice.random())) for each in clients))
        finally:
            for each in clients:
                each.close()

    async def _do(self, client: Client, dice: random.Random, number: int, name: str) -> bool:
        """Whether there was an answer."""
        word = f"{self.mark}x{number}x{secrets.token_hex(4)}"
        _, deed = DEEDS[name]
        seen = await deed(Cage(client, self.texts, word, dice))
        self.told.ways[name, str(seen.status or "no answer")] += 1
        self.told.n_marked += word[::-1].encode() in seen.content
        return seen.status != 0

    def look(self) -> None:
        """Search everything, while all runs and all is held open."""
        search, house = self.search, self.house
        pages = {
            "metrics": self._page("/metrics"),
            "metrics again": self._page("/metrics"),  # perhaps by the other gateway
            "status": self._page("/admin/status"),
            "keys": house.inhouse("key", "ls", "--json", "--all").encode(),
            "audit": house.inhouse("audit", "export").encode(),
            "usage": house.inhouse("usage", "--by", "key,model", "--json").encode(),
            **{f"span {number}": span for number, span in enumerate(self.spans)},
        }
        for name, content in pages.items():
            self.told.hits += search.text(name, content)
        self.told.n_places += len(pages)
        self.told.hits += self._look_at_files(self.since)

    def _look_at_files(self, since: float) -> list[str]:
        house = self.house
        assert house.process is not None
        paths = {*own_files(house.folder, house.run), *shared_files(since)}
        held = list(held_files([house.process.pid, *house.engines().values()]))
        self.told.n_places += len(paths) + len(held)
        return self.search.files([*sorted(paths), *held])

    def prove(self) -> None:
        """A search that finds nothing may be blind: hide the mark, and look again."""
        home, name = self.house.home, f"planted-{self.mark[::2]}"
        places = [home / "logs" / name, home / "journal" / name, home / "spool" / name]
        places += [self.house.run / name, Path("/dev/shm") / name, Path("/tmp") / name]
        for place in places:
            place.write_bytes(forms(self.mark)["UTF-16"])
        database = home / f"{name}.sqlite3"
        with closing(sqlite3.connect(database)) as opened, opened:
            opened.execute("PRAGMA journal_mode=WAL")
            opened.execute("CREATE TABLE t (x)")
            opened.execute("INSERT INTO t VALUES (?)", (f"before{self.mark}after",))
        found = "\n".join(self._look_at_files(time.time() - _PLANTING_S))
        for place in (*places, database):
            place.unlink()
            if str(place) not in found:
                self.told.hits.append(f"the search is blind: {place}")

    def _page(self, path: str) -> bytes:
        async def get() -> bytes:
            client = Client(self.house.port, self.texts.admin)
            seen = await client.ask(b"", path, method="GET")
            client.close()
            assert seen.status == 200
            return seen.content

        return asyncio.run(get())


@contextmanager
def caged(place: Path) -> Iterator[Cages]:
    """A house in which all that could write, writes as much as it can."""
    since = time.time()
    with _collector() as (address, spans):
        settings = _SETTINGS | {"traces": {"endpoint": address}}
        with running_house(place / "house", _KNOBS, settings) as house:
            everything = ("--scope", "inference,admin,metrics")
            made = [
                house.create_key("one", *everything)[0],
                house.create_key("two", "--rpm", "1")[0],
                house.create_key("two", "--models", "slow*")[0],
            ]
            mark = _ECHO + secrets.token_hex(6)
            yield Cages(house, Texts(*made), mark, spans, since, Told())


def run(place: Path, count: int, dice: random.Random) -> Told:
    """So many deeds in a house of its own, and the search after them."""
    with caged(place) as cages:
        asyncio.run(cages.send(count, dice))
        until(cages.house.is_quiet, _QUIET_S)
        cages.look()
        cages.prove()
        cages.house.stop()  # what is written at the end counts as well
        cages.told.hits += cages.search.files(own_files(cages.house.folder, cages.house.run))
        if not cages.told.n_marked:
            cages.told.hits.append("no answer was marked: the engines said nothing")
        if not cages.spans:
            cages.told.hits.append("no traces came")
        return cages.told


def _kill_gateway(signum: signal.Signals) -> Any:
    def hurt(house: House) -> None:
        for pid in house.gateways()[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)

    return hurt


def _kill_engines(house: House) -> None:
    """In the middle of streams. They start again, and die again while they load."""
    for _ in range(2):
        for each in house.status()["models"]:
            if each["name"] in ("loading", "slow") and each["pid"]:
                with suppress(ProcessLookupError):
                    os.kill(each["pid"], signal.SIGKILL)
        time.sleep(0.3)  # in the middle of its load, if it is quick to begin


def _restart(house: House) -> None:
    house.kill()
    house.start()


# SIGABRT and SIGSEGV: of those a kernel would write core files.
_HURTS = (
    _kill_gateway(signal.SIGKILL), _kill_engines, _kill_gateway(signal.SIGABRT), _restart,
    _kill_gateway(signal.SIGSEGV),
)  # fmt: skip


@contextmanager
def _collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP collector: its address, and all that it gets."""
    spans: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            is_packed = self.headers.get("content-encoding") == "gzip"
            spans.append(gzip.decompress(content) if is_packed else content)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", spans
        server.shutdown()
        thread.join()
