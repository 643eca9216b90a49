"""`inhouse bench`: what a running server can do, ours or any other that speaks OpenAI."""

import asyncio
import secrets
from dataclasses import asdict
from typing import Annotated

import typer

from serve.bench import LoadReport, Target, closed_loop, prompts
from serve.cli import live, output
from serve.cli.chat import api_key, first_ready
from serve.cli.flags import JsonFlag, with_settings
from serve.settings import Settings

_HEAD = ("STREAMS", "OUTPUT TOK/S", "TTFT P50", "TTFT P99", "TPOT P50", "CACHED", "FAILED")


@with_settings("paths", "server.api_key")
def bench(
    settings: Settings,
    model: Annotated[
        str | None, typer.Argument(help="Nothing named: the first that is ready.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="A server elsewhere, without /v1; needs MODEL.")
    ] = None,
    streams: Annotated[str, typer.Option(help="How many at once, each in turn.")] = "1,16",
    requests: Annotated[int, typer.Option(min=1, help="Requests per stream.")] = 4,
    input_words: Annotated[int, typer.Option("--input", min=1, help="Words asked.")] = 256,
    output_tokens: Annotated[int, typer.Option("--output", min=1, help="Tokens answered.")] = 64,
    shared: Annotated[int, typer.Option(min=0, help="Words that all prompts begin with.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Measure throughput and latency of a server that runs (a closed loop)."""
    is_own = url is None or model is None
    if url is None or model is None:
        status = live.client(settings).status()
        url, model = status.address, model or first_ready(status)
    key = api_key(settings)
    counts = _counts(streams)
    run = secrets.token_hex(4)  # a seed of its own: no prompt was in any cache before
    target = Target(url, model, api_key=key, is_verified=not is_own)

    def measured(count: int) -> LoadReport:
        output.say(f"{count} streams …")
        asked = prompts(input_words, output_tokens, f"{run}-{count}", min(shared, input_words))
        return asyncio.run(closed_loop(target, asked, count, count * requests))

    reports = [measured(count) for count in counts]
    if as_json:
        output.put_json([asdict(report) for report in reports])
        return
    output.put_table(_HEAD, [_row(report) for report in reports])
    for error in sorted({error for report in reports for error in report.errors}):
        output.say(error, "yellow")


def _counts(text: str) -> list[int]:
    if not all(part.strip().isdigit() and int(part) > 0 for part in text.split(",")):
        raise typer.BadParameter(f"--streams: expected something like 1,4,16: {text}")
    return [int(part) for part in text.split(",")]


def _row(report: LoadReport) -> tuple[str, ...]:
    return (
        str(report.streams),
        f"{report.output_tok_s:.1f}",
        _ms(report.ttft_s.median if report.ttft_s else None),
        _ms(report.ttft_s.p99 if report.ttft_s else None),
        _ms(report.tpot_s.median if report.tpot_s else None),
        "–" if report.cached_tokens is None else f"{report.cached_tokens:,}",
        str(report.failed),
    )


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:,.1f} ms"
