"""The official Python SDKs, as people use them."""

from typing import Any

import anthropic
import openai
import pytest

from tests.gateway.stack import FakeEngine, Stack

MESSAGE: Any = {"role": "user", "content": "What is the capital of France?"}


def openai_client(stack: Stack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0)


def test_openai_asks_and_streams(stack: Stack, engine: FakeEngine) -> None:
    with openai_client(stack) as client:
        whole = client.chat.completions.create(model=engine.name, messages=[MESSAGE])
        stream = client.chat.completions.create(
            model=f"org/{engine.name}",
            messages=[MESSAGE],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
        assert text.strip() == whole.choices[0].message.content == " ".join(["Paris"] * 8)
        assert chunks[-1].usage == whole.usage
        answer = client.responses.create(model=engine.name, input="Hi")
        assert answer.output_text.startswith("Paris")
        assert client.embeddings.create(model=engine.name, input="Hi", encoding_format="float").data


def test_openai_lists_models(stack: Stack, engine: FakeEngine) -> None:
    with openai_client(stack) as client:
        assert [model.id for model in client.models.list()] == [engine.name, f"org/{engine.name}"]
        assert client.models.retrieve(f"org/{engine.name}").owned_by == "inhouse"


def test_openai_understands_our_errors(stack: Stack) -> None:
    with openai_client(stack) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="none", messages=[])
        assert caught.value.code == "model_not_found" and caught.value.param == "model"
        with stack.engine(fake_cut_after=2) as engine, pytest.raises(openai.APIError) as broken:
            for _ in client.completions.create(model=engine.name, prompt="Hi", stream=True):
                pass
        assert "in the middle of its answer" in broken.value.message


def test_anthropic_asks_and_streams(stack: Stack, engine: FakeEngine) -> None:
    with anthropic.Anthropic(base_url=stack.url, api_key="none", max_retries=0) as client:
        asked: Any = {"model": engine.name, "max_tokens": 5, "messages": [MESSAGE]}
        message = client.messages.create(**asked)
        assert message.content[0].text == " ".join(["Paris"] * 5)
        with client.messages.stream(**asked) as stream:
            assert "".join(stream.text_stream).strip() == message.content[0].text
        counted = client.messages.count_tokens(model=engine.name, messages=[MESSAGE])
        assert counted.input_tokens > 0


def test_anthropic_understands_our_errors(stack: Stack) -> None:
    with anthropic.Anthropic(base_url=stack.url, api_key="none", max_retries=0) as client:
        with pytest.raises(anthropic.NotFoundError, match="'none' is not served here"):
            client.messages.create(model="none", max_tokens=5, messages=[])
        with stack.engine(fake_cut_after=2) as engine, pytest.raises(anthropic.APIError) as broken:
            for _ in client.messages.create(
                model=engine.name, max_tokens=5, messages=[], stream=True
            ):
                pass
        assert "in the middle of its answer" in str(broken.value)
