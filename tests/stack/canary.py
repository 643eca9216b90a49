"""Thousands of requests whose words are marked; then the marks are looked for wherever a process of
the house could have left them. The fakes say each mark backwards, so answers are marked as well.
"""

import asyncio
import gzip
import os
import random
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.stack.client import Client
from tests.stack.deeds import DEEDS, Cage, Texts
from tests.stack.house import House, running_house, until
from tests.stack.search import Search, held_files, own_files, shared_files

_ECHO = "knry"
_WORKERS = 24
_QUIET_S = 60.0
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
        hurts = {count * part // 6: hurt for part, hurt in enumerate(_HURTS, 1)}

        one_by_one = asyncio.Lock()

        async def work(own: random.Random) -> None:
            client = Client(self.house.port)
            for number, name in turns:
                if number in hurts:
                    async with one_by_one:
                        await asyncio.to_thread(hurts[number], self.house)
                await self._do(client, own, number, name)
            client.close()

        await asyncio.gather(*(work(random.Random(dice.random())) for _ in range(_WORKERS)))

    async def _do(self, client: Client, dice: random.Random, number: int, name: str) -> None:
        word = f"{self.mark}x{number}x{secrets.token_hex(4)}"
        _, deed = DEEDS[name]
        seen = await deed(Cage(client, self.texts, word, dice))
        self.told.ways[name, str(seen.status or "no answer")] += 1
        self.told.n_marked += word[::-1].encode() in seen.content

    def look(self) -> None:
        """Search everything, while all runs and all is held open."""
        search, house, told = self.search, self.house, self.told
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
            told.hits += search.text(name, content)
        assert house.process is not None
        paths = {*own_files(house.folder, house.run), *shared_files(self.since)}
        held = list(held_files([house.process.pid, *house.engines().values()]))
        told.hits += search.files([*sorted(paths), *held])
        told.n_places += len(pages) + len(paths) + len(held)

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


def _kill_engine(house: House) -> None:
    """It starts again, and dies again while it loads."""
    for _ in range(2):
        found = [each for each in house.status()["models"] if each["name"] == "loading"]
        if found and (pid := found[0]["pid"]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)  # in the middle of its load, if it is quick to begin


def _restart(house: House) -> None:
    house.kill()
    house.start()


# SIGABRT and SIGSEGV: of those a kernel would write core files.
_HURTS = (
    _kill_gateway(signal.SIGKILL), _kill_engine, _kill_gateway(signal.SIGABRT), _restart,
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
