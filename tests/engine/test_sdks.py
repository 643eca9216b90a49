"""The official SDKs against the running stack with a real model."""

import json
import re
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.engine.stack import STARTER, Stack

pytestmark = pytest.mark.engine

CAPITAL: Any = [{"role": "user", "content": "What is the capital of France?"}]
# About 1,500 tokens that no other test sends.
LONG = "The quick brown fox of the east jumps over the lazy dog of the west. " * 95


@pytest.fixture(scope="module")
def client(stack: Stack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", timeout=120, max_retries=0)


def test_the_starter_knows_the_capital_of_france(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=STARTER, messages=CAPITAL, temperature=0, max_tokens=32
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.model == STARTER
    assert answer.choices[0].finish_reason == "stop"
    usage = answer.usage
    assert usage is not None
    assert usage.prompt_tokens > 5
    assert 0 < usage.completion_tokens <= 32
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_streamed_text_equals_the_unstreamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model=STARTER, messages=CAPITAL, temperature=0, max_tokens=24
    )
    chunks = list(
        client.chat.completions.create(
            model=STARTER, messages=CAPITAL, temperature=0, max_tokens=24,
            stream=True, stream_options={"include_usage": True},
        )
    )  # fmt: skip
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    last = chunks[-1].usage
    assert last is not None and whole.usage is not None
    assert last.prompt_tokens == whole.usage.prompt_tokens
    assert last.completion_tokens == whole.usage.completion_tokens
    assert last.total_tokens == whole.usage.total_tokens


def test_usage_counts_what_tokenize_counts(stack: Stack, client: openai.OpenAI) -> None:
    counted = httpx.post(
        f"{stack.url}/tokenize", json={"model": STARTER, "messages": CAPITAL}, timeout=60
    ).json()
    answer = client.chat.completions.create(
        model=STARTER, messages=CAPITAL, temperature=0, max_tokens=1
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == counted["count"]
    assert answer.usage.completion_tokens == 1
    text = httpx.post(
        f"{stack.url}/detokenize", json={"model": STARTER, "tokens": counted["tokens"]}, timeout=60
    ).json()
    assert "capital of France" in text["prompt"]


def test_a_long_prefix_is_cached_the_second_time(client: openai.OpenAI) -> None:
    def cached(question: str) -> int:
        answer = client.chat.completions.create(
            model=STARTER, temperature=0, max_tokens=4,
            messages=[{"role": "user", "content": LONG + question}],
        )  # fmt: skip
        assert answer.usage is not None and answer.usage.prompt_tokens > 1000
        details = answer.usage.prompt_tokens_details
        return (details.cached_tokens or 0) if details else 0

    assert cached("Who jumps?") == 0
    assert cached("Over whom?") >= 1000


def test_an_alias_is_served_as_the_model(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert STARTER in names
    alias = next(name for name in names if name != STARTER)
    answer = client.completions.create(model=alias, prompt="Once upon", max_tokens=2, temperature=0)
    assert answer.model == STARTER
    assert answer.usage is not None and answer.usage.completion_tokens == 2


def test_the_responses_api(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model=STARTER, input="What is the capital of France?", temperature=0, max_output_tokens=32
    )
    assert "Paris" in answer.output_text
    events = client.responses.create(
        model=STARTER, input="What is the capital of France?", temperature=0,
        max_output_tokens=32, stream=True,
    )  # fmt: skip
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == answer.output_text


def test_the_anthropic_sdk(stack: Stack) -> None:
    client = anthropic.Anthropic(base_url=stack.url, api_key="none", timeout=120, max_retries=0)
    greedy = {"temperature": 0}  # the SDK has no such argument any more
    answer = client.messages.create(
        model=STARTER, max_tokens=32, messages=CAPITAL, extra_body=greedy
    )
    (block,) = answer.content
    assert block.type == "text" and "Paris" in block.text
    assert answer.usage.input_tokens > 5 and answer.usage.output_tokens > 0
    with client.messages.stream(
        model=STARTER, max_tokens=32, messages=CAPITAL, extra_body=greedy
    ) as stream:
        assert "".join(stream.text_stream) == block.text
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nobody", max_tokens=1, messages=CAPITAL)


def test_a_prompt_beyond_the_context_gets_the_engines_own_400(stack: Stack) -> None:
    body = {"model": STARTER, "prompt": "word " * 20000, "max_tokens": 4}
    ours = httpx.post(f"{stack.url}/v1/completions", json=body, timeout=60)
    with stack.engine() as engine:
        theirs = engine.post("/v1/completions", json=body)
    assert ours.status_code == theirs.status_code == 400
    assert ours.content == theirs.content
    assert "maximum context length" in ours.json()["error"]["message"]


def test_an_engine_that_cannot_embed_says_so_itself(stack: Stack) -> None:
    body = {"model": STARTER, "input": "hello"}
    ours = httpx.post(f"{stack.url}/v1/embeddings", json=body, timeout=60)
    with stack.engine() as engine:
        theirs = engine.post("/v1/embeddings", json=body)
    assert (ours.status_code, json.loads(ours.content)) == (theirs.status_code, theirs.json())


def test_an_unknown_model_is_a_404_with_near_matches(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="smollm2-135m-instrukt", messages=CAPITAL)
    assert caught.value.code == "model_not_found"
    assert STARTER in str(caught.value)


def test_metrics_show_ours_and_the_engines(stack: Stack) -> None:
    text = httpx.get(f"{stack.url}/metrics", timeout=10).text
    assert "inhouse_requests_total" in text
    assert "vllm:num_requests_running" in text
    assert "vllm:prefix_cache_hits_total" in text


def test_the_dashboard_knows_the_engine_s_series(stack: Stack) -> None:
    dashboard = (Path(__file__).parents[2] / "deploy" / "grafana" / "inhouse.json").read_text()
    shown = set(re.findall(r"\bvllm:[a-z_]+", dashboard))
    page = httpx.get(f"{stack.url}/metrics", timeout=10).text
    there = set(re.findall(r"^(vllm:[a-z_]+)\{", page, re.MULTILINE))
    assert shown and shown <= there
