"""Clients as people use them, through the whole of Inhouse, with a real model."""

import asyncio
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest

from tests.engine.stack import STARTER, Stack, wait_until

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
CAPITAL: Any = [{"role": "user", "content": "What is the capital of France?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 30}},
    "required": ["city"],
    "additionalProperties": False,
}
LOOK_UP: Any = {
    "type": "function",
    "function": {"name": "look_up", "description": "Look a city up.", "parameters": CITY},
}


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{stack.url}/v1", api_key="none", timeout=120, max_retries=0
    ) as client:
        yield client


def test_openai_many_at_once(stack: Stack) -> None:
    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none") as client:

            async def ask(number: int) -> str:
                stream = await client.chat.completions.create(
                    model=STARTER, messages=CAPITAL, temperature=0, max_tokens=16, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*map(ask, range(8)))

    answers = asyncio.run(ask_all())
    assert len(answers) == 8 and all("Paris" in answer for answer in answers)


def test_openai_tools(client: openai.OpenAI, stack: Stack) -> None:
    """What so small a model writes as arguments is its own; that it comes through is ours."""
    asked: Any = {
        "model": STARTER, "messages": CAPITAL, "tools": [LOOK_UP], "max_tokens": 64,
        "temperature": 0, "tool_choice": {"type": "function", "function": {"name": "look_up"}},
    }  # fmt: skip
    answer = client.chat.completions.create(**asked)
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function" and call.function.name == "look_up"
    with stack.engine() as engine:
        straight = engine.post("/v1/chat/completions", json=asked).json()
    (theirs,) = straight["choices"][0]["message"]["tool_calls"]
    assert call.function.arguments == theirs["function"]["arguments"]
    parts = [
        part.function.arguments or ""
        for chunk in client.chat.completions.create(**asked, stream=True)
        for choice in chunk.choices
        for part in choice.delta.tool_calls or []
        if part.function is not None
    ]
    assert "".join(parts) == call.function.arguments


def test_openai_json_schema(client: openai.OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    answer = client.chat.completions.create(
        model=STARTER, messages=CAPITAL, response_format=wanted, max_tokens=64, temperature=0
    )
    assert list(json.loads(answer.choices[0].message.content or "")) == ["city"]


def test_openai_batches(client: openai.OpenAI) -> None:
    rows = [
        {
            "custom_id": f"id-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": CAPITAL, "max_tokens": 16, "temperature": 0},
        }
        for number, model in enumerate([STARTER] * 12 + ["nobody"])
    ]
    file = client.files.create(
        file=("in.jsonl", io.BytesIO("\n".join(map(json.dumps, rows)).encode())), purpose="batch"
    )
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    wait_until(lambda: client.batches.retrieve(batch.id).completed_at, 60, "the batch is over")
    batch = client.batches.retrieve(batch.id)
    assert batch.request_counts is not None and batch.output_file_id and batch.error_file_id
    assert (batch.request_counts.completed, batch.request_counts.failed) == (12, 1)
    output = client.files.content(batch.output_file_id).text.splitlines()
    answers = {row["custom_id"]: row["response"]["body"] for row in map(json.loads, output)}
    assert len(answers) == 12
    for answer in answers.values():
        assert "Paris" in answer["choices"][0]["message"]["content"]
        assert answer["usage"]["completion_tokens"] <= 16
    (bad,) = map(json.loads, client.files.content(batch.error_file_id).text.splitlines())
    assert bad["custom_id"] == "id-12" and bad["response"]["status_code"] == 404
    client.files.delete(file.id)


@pytest.fixture(scope="module")
def local(stack: Stack) -> Iterator[ollama.Client]:
    client = ollama.Client(host=stack.url)
    yield client
    client._client.close()


def test_ollama_chats(local: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 24, "num_ctx": 2048}
    whole = local.chat(STARTER, CAPITAL, options=options)
    assert "Paris" in (whole.message.content or "")
    assert whole.prompt_eval_count and 0 < (whole.eval_count or 0) <= 24
    pieces = list(local.chat(f"{STARTER}:latest", CAPITAL, options=options, stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    last = pieces[-1]
    assert last.done and last.eval_count == whole.eval_count
    assert 0 < (last.eval_duration or 0) < (last.total_duration or 0)


def test_ollama_generates_as_told(local: ollama.Client) -> None:
    short = local.generate(STARTER, "Once upon a", raw=True, options={"num_predict": 3})
    assert short.response and short.done_reason == "length" and short.eval_count == 3
    formed = local.generate(
        STARTER, "What is the capital of France?", format=CITY, options={"num_predict": 64}
    )
    assert list(json.loads(formed.response or "")) == ["city"]


def test_ollama_knows_its_models(local: ollama.Client) -> None:
    names = [model.model for model in local.list().models]
    assert f"{STARTER}:latest" in names and local.ps().models
    with pytest.raises(ollama.ResponseError) as caught:
        local.chat("nobody", CAPITAL)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError) as cannot:
        local.embed(STARTER, "a")  # it is no embedding model, and its engine says so
    assert cannot.value.status_code in (400, 404, 501)


Program = Callable[..., str]


@pytest.fixture(scope="session")
def program() -> Program:
    """Runs a program of the environment of clients; skips where that cannot be made."""
    made = subprocess.run(
        [ROOT / "scripts" / "setup", "clients"], capture_output=True, text=True, timeout=600
    )
    if made.returncode:
        why = (made.stderr.strip().splitlines() or ["unknown"])[-1]
        pytest.skip(f"scripts/setup clients cannot install the clients here: {why}")
    # No client may ask anybody but us.
    environ = os.environ | {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1", "LANGSMITH_TRACING": "false",
    }  # fmt: skip

    def run(*command: str, **more: str) -> str:
        name, *arguments = command
        argv = [str(ROOT / ".venv" / "clients" / "bin" / name), *arguments]
        done = subprocess.run(
            argv, env=environ | more, capture_output=True, text=True, timeout=110, cwd="/"
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def test_langchain(stack: Stack, program: Program) -> None:
    script = str(Path(__file__).parent / "clients" / "with_langchain.py")
    told = json.loads(program("python", script, stack.url, STARTER))
    assert "Paris" in told["whole"]
    assert told["streamed"] == told["whole"] == told["awaited"]
    assert told["usage"]["input_tokens"] > 5 and told["usage"]["output_tokens"] > 0
    assert told["city"]


def test_litellm(stack: Stack, program: Program) -> None:
    script = str(Path(__file__).parent / "clients" / "with_litellm.py")
    told = json.loads(program("python", script, stack.url, STARTER))
    assert "Paris" in told["whole"] and told["tokens"] > 5
    assert told["streamed"] == told["awaited"] == told["whole"]
    assert told["anthropic"] == told["ollama"] == told["whole"]
    assert told["error"] == "not found"


def test_llm(stack: Stack, program: Program, tmp_path: Path) -> None:
    """Simon Willison's command-line tool."""
    model = {"model_id": "ours", "model_name": STARTER, "api_base": f"{stack.url}/v1"}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML
    more = {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    ask = ("llm", "-m", "ours", "-o", "temperature", "0", "-o", "max_tokens", "24")
    question = "What is the capital of France?"
    streamed = program(*ask, question, **more)
    assert "Paris" in streamed
    assert program(*ask, "--no-stream", question, **more) == streamed
