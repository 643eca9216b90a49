"""The part `libraries`: the same small relay on several servers and with several clients."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from gateway_bench import peers
from gateway_bench.bodies import Load, apart
from gateway_bench.contenders import Contender, Plan, until_ready
from gateway_bench.machine import MIB, free_port, last_lines, running
from gateway_bench.measuring import Bench, Effort, Figures, Spread, number, remarks, say, spread
from gateway_bench.native import Target, ToolFailed
from gateway_bench.page import prose, table

_SKETCHES = Path(__file__).parent / "sketches"
_UVICORN = "-m uvicorn relay:app --loop uvloop --lifespan off --no-access-log --log-level warning"
_GRANIAN = "-m granian relay:app --interface asginl --loop uvloop --no-ws --http 1 --no-log"


@dataclass(frozen=True, slots=True)
class Sketch:
    """`words`: what Python is started with, before the port."""

    server: str
    client: str
    words: str

    @property
    def name(self) -> str:
        return f"{self.server} + {self.client}"


def _sketches() -> list[Sketch]:
    servers = {
        "uvicorn (httptools, uvloop)": f"{_UVICORN} --http httptools --port",
        "uvicorn (h11, uvloop)": f"{_UVICORN} --http h11 --port",
        "granian": f"{_GRANIAN} --port",
    }
    made = [
        Sketch(server, client, words)
        for server, words in servers.items()
        for client in ("own", "aiohttp", "httpx")
        if "h11" not in server or client == "own"
    ]
    return [*made, Sketch("own protocol, no ASGI", "own", "plain.py")]


def measure(plan: Plan, effort: Effort) -> str:
    python = peers.environment(plan.cache, "libraries") / "python"
    loads = [Load(1), Load(32), apart(32, 1024, effort.events)]
    loads.append(Load(32, events=effort.events))
    contenders, missing = [], {}
    with ExitStack() as stack:
        for sketch in _sketches():
            try:
                contender = stack.enter_context(_started(plan, python, sketch))
            except ToolFailed as error:
                missing[sketch.name] = str(error)
                say(str(error))
                continue
            contender.sleep()
            contenders.append(contender)
        bench = Bench(plan, effort, tuple(contenders), missing)
        figures = bench.rounds(loads)
    outcomes = [each for by_name in figures.values() for some in by_name.values() for each in some]
    used = prose(f"In an environment of their own: {', '.join(peers.PINS['libraries'])}.")
    return "\n\n".join([used, _table(bench, figures), remarks(bench, outcomes)])


@contextlib.contextmanager
def _started(plan: Plan, python: Path, sketch: Sketch) -> Iterator[Contender]:
    port = free_port()
    log = plan.folder / f"sketch-{port}.txt"
    argv = [str(python), *sketch.words.split(), str(port)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env |= {"RELAY_CLIENT": sketch.client, "RELAY_PORT": str(plan.upstream_port)}
    env |= {"PYTHONPATH": str(_SKETCHES), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [str(_SKETCHES / word) if word.endswith(".py") else word for word in argv]
    with running(argv, plan.cores.server, log, env) as process:
        contender = Contender(sketch.name, Target(f"127.0.0.1:{port}"), process.pid)
        try:
            until_ready(contender)
        except ToolFailed as error:
            raise ToolFailed(f"{error}; its log: {last_lines(log)}") from error
        yield contender


def _table(bench: Bench, figures: Figures) -> str:
    head = ["server + upstream client"]
    for load in figures:
        pace = ", apart" if load.pace_us else ", as fast as taken" if load.is_stream else ""
        head.append(f"{load.shown}{pace}")
    rows = []
    for name in bench.names:
        row = [name]
        for load, by_name in figures.items():
            cost = spread(by_name[name], lambda each: each.per_cpu_s(each.events > 0))
            times = [each.whole_ms["p99"] for each in by_name[name]]
            late = (
                f"; p99 {number(Spread.of(times).median)} ms" if times and not load.events else ""
            )
            row.append(f"{cost.shown}{late}" if cost else "–")
        sizes = [e.resident_bytes for by in figures.values() for e in by[name]]
        row.append(f"{max(sizes) / MIB:.0f}" if sizes else "–")
        rows.append(row)
    return table([*head, "RSS, MiB"], rows)
