import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from serve.bench.client import Target, Timing, request
from serve.bench.workload import Prompt
from tests.bench.answers import GOOD, ROLE, answering, chunked, delta, event


def asked_and_timed(socket: Path, pieces: Sequence[bytes]) -> tuple[bytes, Timing]:
    async def ask() -> tuple[bytes, Timing]:
        async with answering(socket, pieces) as asked:
            target = Target("http://x/base", "m", str(socket), api_key="k", salt="s")
            timing = await request(target, Prompt("hello", 3))
        return asked[0], timing

    return asyncio.run(ask())


def test_a_good_answer_is_timed(tmp_path: Path) -> None:
    asked, timing = asked_and_timed(tmp_path / "s", GOOD)
    assert timing.error is None
    assert timing.text == "abc"
    assert len(timing.chunks_s) == 3, "the chunk that names the role is no token"
    assert (timing.prompt_tokens, timing.output_tokens, timing.cached_tokens) == (10, 3, 8)
    assert timing.ttft_s is not None and 0 < timing.ttft_s <= timing.ended_s - timing.started_s
    assert timing.tpot_s is not None and timing.tpot_s >= 0
    head, body = asked.split(b"\r\n\r\n", 1)
    assert head.startswith(b"POST /base/v1/chat/completions HTTP/1.1\r\n")
    assert b"Authorization: Bearer k" in head
    wish = json.loads(body)
    assert wish["cache_salt"] == "s" and wish["max_tokens"] == 3 and wish["stream"] is True


def test_events_may_be_cut_anywhere(tmp_path: Path) -> None:
    whole = b"".join(GOOD)
    _, timing = asked_and_timed(tmp_path / "s", [whole[i : i + 7] for i in range(0, len(whole), 7)])
    assert timing.error is None and timing.text == "abc"


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope"], "Not Found: nope"),
        (chunked(ROLE, delta("a"))[:-1], "the connection ended"),
        (chunked(event(error={"message": "broke"})), "broke"),
        ([b"rubbish\r\n\r\n"], "cut:"),
    ],
)
def test_what_goes_wrong_is_said(tmp_path: Path, pieces: list[bytes], said: str) -> None:
    _, timing = asked_and_timed(tmp_path / "s", pieces)
    assert timing.error is not None and said in timing.error


def test_nobody_there(tmp_path: Path) -> None:
    target = Target("http://x", "m", str(tmp_path / "none"))
    timing = asyncio.run(request(target, Prompt("hello", 1)))
    assert timing.error is not None and timing.error.startswith("no connection")
    assert timing.ttft_s is None and timing.tpot_s is None
