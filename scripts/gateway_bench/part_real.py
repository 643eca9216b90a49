"""The part `real`: output tokens/s of a real engine, straight at it and through Inhouse."""

import asyncio
import http.client
import json
import os
import secrets
import socket
from pathlib import Path

from gateway_bench import inhouse
from gateway_bench.measuring import Spread, number, say
from gateway_bench.native import ToolFailed
from gateway_bench.page import Aim, prose, table
from serve.bench import LoadReport, Target, closed_loop, prompts

_STREAMS = 32
_WORDS, _TOKENS = 64, 128
_AIM = 0.99


def measure(engine: Path, folder: Path, rounds: int, requests: int) -> tuple[str, list[Aim]]:
    """`engine`: the unix socket of a vLLM. Nothing is pinned: the engine has all cores."""
    model = _model(engine)
    told = inhouse.roster(model, [f"unix:{engine}"])
    figures: dict[str, list[float]] = {"straight": [], "Inhouse": []}
    first: dict[str, list[float]] = {"straight": [], "Inhouse": []}
    with inhouse.running_gateway(folder / "real", None, told) as gateway:
        ways = {
            "straight": Target("http://localhost", model, socket=str(engine)),
            "Inhouse": Target(f"http://127.0.0.1:{gateway.port}", model, api_key=inhouse.KEY),
        }
        for target in ways.values():
            _run(target, _STREAMS)
        for number_of_round in range(rounds):
            say(f"round {number_of_round + 1} of {rounds}")
            names = list(ways) if number_of_round % 2 == 0 else list(ways)[::-1]
            for name in names:
                done = _run(ways[name], requests)
                figures[name].append(done.output_tok_s)
                first[name].append(done.ttft_s.median * 1000 if done.ttft_s else 0.0)
                say(f"  {name}: {done.output_tok_s:.0f} tokens/s")
    return _told(model, figures, first, requests)


def _run(target: Target, requests: int) -> LoadReport:
    asked = prompts(_WORDS, _TOKENS, secrets.token_hex(4))
    done = asyncio.run(closed_loop(target, asked, _STREAMS, requests))
    if done.failed:
        raise ToolFailed(f"{done.failed} requests failed: {'; '.join(done.errors)[:300]}")
    return done


def _told(
    model: str, figures: dict[str, list[float]], first: dict[str, list[float]], requests: int
) -> tuple[str, list[Aim]]:
    rows = [
        [name, Spread.of(values).shown, Spread.of(first[name]).shown]
        for name, values in figures.items()
    ]
    pairs = zip(figures["Inhouse"], figures["straight"], strict=True)
    each = Spread.of([through / straight for through, straight in pairs])
    made = Spread.of(figures["Inhouse"]).median / Spread.of(figures["straight"]).median
    text = (
        f"{model} on vLLM, at its unix socket and through Inhouse in turn, "
        f"{len(figures['straight'])} rounds: {requests} requests, {_STREAMS} at once, prompts of "
        f"{_WORDS} words, {_TOKENS} tokens each. Engine, gateway and clients share all "
        f"{len(os.sched_getaffinity(0))} cores."
    )
    shown = f"{made:.3f} × (rounds: {number(each.low)} to {number(each.high)} ×)"
    aim = Aim(f"output tokens/s through Inhouse ≥ {_AIM} × straight", shown, made >= _AIM)
    head = ["", "output tokens/s", "median time to the first token, ms"]
    return f"{prose(text)}\n\n{table(head, rows)}", [aim]


def _model(engine: Path) -> str:
    """The name of what the engine serves. ToolFailed if nobody answers."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(str(engine))
        connection.request("GET", "/v1/models")
        name: str = json.loads(connection.getresponse().read())["data"][0]["id"]
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        raise ToolFailed(f"no engine answers at {engine}: {error!r}") from error
    finally:
        connection.close()
    return name
