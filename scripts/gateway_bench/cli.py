"""Arguments, the order of things, and the two pages."""

import argparse
import contextlib
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gateway_bench import (
    part_chunks,
    part_latency,
    part_libraries,
    part_load,
    part_readers,
    part_real,
    peers,
)  # fmt: skip
from gateway_bench.contenders import INHOUSE, LITELLM, NAMES, ROUTER, STRAIGHT, Plan, seen
from gateway_bench.machine import Cores, describe, load_average
from gateway_bench.measuring import Bench, Effort, say, started_bench
from gateway_bench.native import ToolFailed, Tools, build
from gateway_bench.page import Aim, Section, write

Wishes = argparse.Namespace
_PARTS = "load,latency,chunks"
_PLACES = ("--cache", "--folder", "--docs", "--real", "--other")
DOCS = Path(__file__).parents[2] / "docs"
TITLES = {
    "load": "What each server carries",
    "latency": "What each server adds",
    "chunks": "Events of streams, as fast as they go",
    "readers": "Slow readers",
    "real": "In front of a real engine",
    "libraries": "Servers and clients",
    "self": "The program itself",
}
MEASURES = {
    "load": part_load.measure,
    "latency": part_latency.measure,
    "chunks": part_chunks.measure,
    "readers": part_readers.measure,
}
HEADING = """# What the gateway costs

Written by `scripts/bench-gateway`, side by side in one run; ratios hold, absolute figures are
those of one shared virtual machine. Medians of all rounds, extremes in brackets. Servers are
awake only while they are measured themselves, alone on a core of their own; clients and
upstream share another one. CPU is that of all processes and threads of a server. Clients and
upstream are programs in C (`scripts/gateway_bench/native/`); *straight* is without any server
between them.

Inhouse is one gateway process with keys (65 of them), every kind of limit on key, tenant and
model, the journal on disk, prefix routing over two replicas, prices and metrics on, and asks
its upstream by unix socket. What the supervisor does beside it, such as taking the journal into
the ledger, is not in it. LiteLLM's proxy runs one worker with a master key and without a
database, and is asked by 256 clients in the first round only, since it takes long to work off
what they leave; vllm-router runs round robin without keys or limits; both ask the upstream by
TCP.
"""
LIBRARIES = """# The gateway's libraries, chosen by measurement

Written by `scripts/bench-gateway --parts libraries`. One small relay
(`scripts/gateway_bench/sketches/`) that hashes the key, looks for the model and passes bytes
on, on several servers and with several clients of the upstream: requests, or events of streams,
per CPU-second of one core. Medians, extremes in brackets. *own* is a pool of connections with a
protocol of our own over httptools.

What we chose: uvicorn with httptools on uvloop, and our own protocol towards engines. No other
server carried more requests, aiohttp carried about a third of what the protocol of our own did,
and httpx is out of the question. What ASGI itself costs shows in the last row; so the gateway
keeps uvicorn's connections and parsing, but requests for engines do not become ASGI's messages:
what the parser has found is handed on in the same callback, and a head that a client sends again
is known by its bytes and not parsed again (`serve/gateway/known.py`).

Why it is not compiled: mypyc (2.4.1) halved the CPU of a request in one piece (114 to 57 µs in the
process, before the steps of a request were halved in Python; streams: 1.13 times as many events).
But it drops the keywords of msgspec's structs without a word, `forbid_unknown_fields` among them,
by which harmless bodies are told from others, and compiled two of our functions wrongly, both of
which showed only when they ran.
"""


def main() -> int:
    wishes = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and all servers with it
    try:
        with prepared(wishes) as plan:
            for made in measured(wishes, plan):
                print(made.text() + "\n", flush=True)
                if not wishes.dry:
                    publish(wishes.docs, made)
    except ToolFailed as error:
        say(f"bench-gateway: {error}")
        return 1
    return 0


def publish(docs: Path, made: Section) -> None:
    """The section into its page, at once: nothing is lost if the next part fails."""
    if made.name == "libraries":
        write(docs / "gateway-libraries.md", LIBRARIES, list(TITLES), made)
    elif made.name != "self":
        write(docs / "gateway-performance.md", HEADING, list(TITLES), made)


def arguments(words: Sequence[str] | None = None) -> Wishes:
    parser = argparse.ArgumentParser(
        prog="bench-gateway", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Inhouse's gateway beside its peers, in one run.",
    )  # fmt: skip
    parser.add_argument("--parts", help=f"of: {', '.join(TITLES)} (default: {_PARTS})")
    parser.add_argument("--contenders", default=",".join((STRAIGHT, INHOUSE, LITELLM, ROUTER)),
                        help=f"of: {', '.join(NAMES)}")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of 0.8 s: a first look")
    parser.add_argument("--minutes", type=float, default=10.0, help="of slow readers")
    parser.add_argument("--readers", type=int, default=10_000)
    parser.add_argument("--arrivals", choices=("even", "poisson"), default="even")
    parser.add_argument("--real", type=Path, metavar="SOCKET", help="of a vLLM, for part real")
    parser.add_argument("--requests", type=int, default=128, help="a round of part real")
    parser.add_argument("--other", type=Path, help="another tree, for contender inhouse-other")
    parser.add_argument("--cache", type=Path, default=peers.default_cache(), help="of the peers")
    parser.add_argument("--folder", type=Path, help="where to work; on a disk, for the journal")
    parser.add_argument("--server-core", type=int)
    parser.add_argument("--client-core", type=int)
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the pages are")
    parser.add_argument("--dry", action="store_true", help="write no page")
    wishes = parser.parse_args(words)
    wishes.parts = (wishes.parts or ("real" if wishes.real else _PARTS)).split(",")
    wishes.contenders = wishes.contenders.split(",")
    for given, known in ((wishes.parts, TITLES), (wishes.contenders, NAMES)):
        if unknown := set(given) - set(known):
            parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if "real" in wishes.parts and wishes.real is None:
        parser.error("part real needs --real SOCKET")
    return wishes


@contextlib.contextmanager
def prepared(wishes: Wishes) -> Iterator[Plan]:
    """Tools made, the upstream listening."""
    cores = Cores.choose(wishes.server_core, wishes.client_core)
    with tempfile.TemporaryDirectory(prefix="bench-gateway-", dir=wishes.folder) as name:
        folder = Path(name)
        build(folder)
        tools = Tools(folder, cores.clients)
        socket = folder / "upstream.sock"
        with tools.upstream(socket) as port:
            yield Plan(tools, cores, folder, wishes.cache, socket, port, wishes.other)


def effort_of(wishes: Wishes) -> Effort:
    effort = Effort(
        seconds=wishes.seconds, rounds=wishes.rounds, readers=wishes.readers,
        minutes=wishes.minutes, arrivals=wishes.arrivals,
    )  # fmt: skip
    return replace(effort, seconds=0.8, warm_s=0.2, rounds=1) if wishes.quick else effort


def measured(wishes: Wishes, plan: Plan) -> Iterator[Section]:
    """A section for each part, when it is done."""
    effort = effort_of(wishes)
    if "self" in wishes.parts:
        short = replace(effort, seconds=0.15, warm_s=0.05, rounds=1)
        with started_bench(plan, short, [STRAIGHT]) as bench:
            yield section(plan, "self", part_load.check(bench))
    shared = [part for part in MEASURES if part in wishes.parts]
    if shared:
        with started_bench(plan, effort, wishes.contenders) as bench:
            versions = _checked(bench)
            for part in shared:
                text, aims = MEASURES[part](bench)
                made = section(plan, part, text, aims)
                yield replace(made, lines=[*made.lines, *versions])
    if "real" in wishes.parts:
        text, aims = part_real.measure(wishes.real, plan.folder, effort.rounds, wishes.requests)
        yield section(plan, "real", text, aims)
    if "libraries" in wishes.parts:
        yield section(plan, "libraries", part_libraries.measure(plan, effort))


def section(plan: Plan, name: str, text: str, aims: Sequence[Aim] = ()) -> Section:
    measured_at = datetime.now(UTC).isoformat(timespec="minutes")
    asked = shlex.join(["scripts/bench-gateway", *public(sys.argv[1:])])
    lines = [
        f"{measured_at}, `{asked}`; load average {load_average()} at the end.",
        *describe(plan.cores),
    ]
    return Section(name, TITLES[name], lines, text, aims)


def public(words: Sequence[str]) -> list[str]:
    """The command line without the places of this machine."""
    pairs = zip(["", *words], words, strict=False)
    return [word for before, word in pairs if before not in _PLACES and word not in _PLACES]


def _checked(bench: Bench) -> list[str]:
    """Who took part, and what of Inhouse was seen to be on."""
    pins = [pin for name in bench.names for pin in peers.PINS.get(name, ())]
    lines = [f"Peers: {', '.join(pins)}."] if pins else []
    contender = bench.find(INHOUSE)
    if contender is not None:
        with contender.awake():
            lines.append(f"Inhouse, as it was found: {'; '.join(seen(contender))}.")
    return lines
