"""The translation itself: requests to OpenAI's words, answers to Ollama's."""

import json
from typing import Any

import pytest

from serve.errors import BadRequest, ModelNotServed
from serve.gateway import ollama_asked as asked
from serve.gateway import ollama_models as models
from serve.gateway import ollama_told as told
from serve.gateway.served import Served
from serve.quota import Key
from serve.roster import Replica, Roster, ServedModel

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"function": {"name": "weather", "arguments": {"city": "Rome"}}}


def chat(**more: Any) -> dict[str, Any]:
    wish = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | more
    read = asked.read_wish(json.dumps(wish).encode(), asked.ChatWish)
    return asked.chat_body(read, "m")


def generate(**more: Any) -> dict[str, Any]:
    read = asked.read_wish(json.dumps({"model": "m"} | more).encode(), asked.GenerateWish)
    return asked.generate_body(read, "m")


def test_a_chat_streams_with_usage_unless_told_otherwise() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert chat() == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": messages,
    }
    assert chat(stream=False) == {"model": "m", "stream": False, "messages": messages}


def test_options_have_other_names() -> None:
    options = {
        "temperature": 0.0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "seed": 4, "num_predict": 9,
        "repeat_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": 2, "stop": ["a"],
        "num_ctx": 4096, "mirostat": 1, "num_gpu": 2,
    }  # fmt: skip
    body = chat(stream=False, options=options)
    del body["messages"], body["model"], body["stream"]
    assert body == {
        "temperature": 0.0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "seed": 4, "max_tokens": 9,
        "repetition_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": 2, "stop": ["a"],
    }  # fmt: skip


@pytest.mark.parametrize("most", [-2, -1, 0])
def test_no_end_and_no_seed_are_left_out(most: int) -> None:
    assert "max_tokens" not in chat(options={"num_predict": most, "seed": -1})
    assert "seed" not in chat(options={"num_predict": most, "seed": -1})


def test_formats() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert chat(format="json")["response_format"] == {"type": "json_object"}
    assert chat(format=schema)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema},
    }
    assert "response_format" not in chat(format="")
    with pytest.raises(BadRequest, match="format"):
        chat(format="xml")


def test_thinking() -> None:
    assert chat(think=False)["chat_template_kwargs"] == {"enable_thinking": False}
    assert chat(think="high")["reasoning_effort"] == "high"
    past = [{"role": "assistant", "content": "4", "thinking": "2 + 2"}]
    (message,) = chat(messages=past)["messages"]
    assert message == {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}


def test_answers_of_tools_find_their_calls() -> None:
    other = {"function": {"name": "time", "arguments": {}}}
    messages = [
        {"role": "user", "content": "Weather and time?"},
        {"role": "assistant", "tool_calls": [CALL, other]},
        {"role": "tool", "content": "12:00", "tool_name": "time"},
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": "of no call"},
    ]
    made = chat(messages=messages, tools=[TOOL])
    assert made["tools"] == [TOOL]
    first, second = made["messages"][1]["tool_calls"]
    assert first["function"] == {"name": "weather", "arguments": '{"city":"Rome"}'}
    assert first["id"] != second["id"] and first["type"] == "function"
    tools = [message["tool_call_id"] for message in made["messages"][2:4]]
    assert tools == [second["id"], first["id"]]


@pytest.mark.parametrize(
    ("start", "kind"), [("/9j/4AAQ", "jpeg"), ("iVBORw0KGgoAAAA", "png"), ("UklGRg", "webp")]
)
def test_images_are_data_urls(start: str, kind: str) -> None:
    message = {"role": "user", "content": "What is it?", "images": [start]}
    assert chat(messages=[message])["messages"][0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{start}"}},
    ]


def test_generate_is_a_chat_or_with_raw_a_completion() -> None:
    assert generate(prompt="Hi", system="Be short.")["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
    ]
    raw = generate(prompt="Hi", raw=True, stream=False)
    assert raw == {"model": "m", "stream": False, "prompt": "Hi"}
    assert generate(prompt="a", suffix="b", stream=False)["suffix"] == "b"
    for name, value in (("context", [1, 2]), ("template", "{{ .Prompt }}")):
        with pytest.raises(BadRequest, match=f"{name} is not supported"):
            generate(prompt="Hi", **{name: value})


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"model": 5}', b"{}", b'{"model":"m","messages":[{}]}', b"\xff"]
)
def test_what_is_no_wish_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        asked.read_wish(body, asked.ChatWish)


def test_embeddings() -> None:
    wish = asked.read_wish(b'{"model":"m","input":["a","b"],"truncate":true}', asked.EmbedWish)
    assert asked.embed_body(wish, "m") == {
        "model": "m",
        "input": ["a", "b"],
        "encoding_format": "float",
        "truncate_prompt_tokens": -1,
    }
    answer = {"data": [{"embedding": [1.0]}, {"embedding": [2.0]}], "usage": {"prompt_tokens": 3}}
    assert told.embedded(answer, "m", is_old=False) == {
        "model": "m",
        "embeddings": [[1.0], [2.0]],
        "prompt_eval_count": 3,
    }
    assert told.embedded(answer, "m", is_old=True) == {"embedding": [1.0]}


def events(*records: object) -> list[dict[str, Any]]:
    telling = told.Telling("m", is_chat=True)
    lines = [
        record if isinstance(record, bytes) else json.dumps(record).encode() for record in records
    ]
    found = [line for data in lines for line in telling.event(data)]
    return found + list(telling.close())


def delta(finish: str | None = None, **part: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": part, "finish_reason": finish}]}


def test_a_stream_is_pieces_and_an_end() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    first, second, third, last = events(
        delta(role="assistant", content=""), delta(reasoning="Well"), delta(content="Par"),
        delta("length", content="is"), usage, b"[DONE]",
    )  # fmt: skip
    assert first["message"] == {"role": "assistant", "content": "", "thinking": "Well"}
    assert second["message"] == {"role": "assistant", "content": "Par"} and not second["done"]
    assert third["message"]["content"] == "is" and third["model"] == "m"
    assert (last["done"], last["done_reason"]) == (True, "length")
    assert (last["prompt_eval_count"], last["eval_count"]) == (5, 2)
    total = last["prompt_eval_duration"] + last["eval_duration"]
    assert total == last["total_duration"] > 0 == last["load_duration"]


def test_tool_calls_in_pieces_come_as_one() -> None:
    start = {"index": 0, "id": "x", "function": {"name": "weather", "arguments": '{"ci'}}
    rest = {"index": 0, "function": {"arguments": 'ty":"Rome"}'}}
    other = {"index": 1, "id": "y", "function": {"name": "time", "arguments": ""}}
    calls, last = events(
        delta(tool_calls=[start]), delta(tool_calls=[rest]),
        delta("tool_calls", tool_calls=[other]), b"[DONE]",
    )  # fmt: skip
    assert calls["message"]["tool_calls"] == [
        CALL,
        {"function": {"name": "time", "arguments": {}}},
    ]
    assert last["done"] and last["done_reason"] == "stop"


def test_an_answer_in_one_piece() -> None:
    call = {"id": "x", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {
        "choices": [{"message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    record = told.Telling("m", is_chat=True).whole(answer)
    assert record["message"] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert record["done"] and record["eval_count"] == 2
    plain = {"choices": [{"text": "Rome", "finish_reason": "stop"}]}
    assert told.Telling("m", is_chat=False).whole(plain)["response"] == "Rome"


def test_arguments_that_are_no_json_are_not_lost() -> None:
    bad = {"index": 0, "function": {"name": "weather", "arguments": "Rome"}}
    calls, _ = events(delta(tool_calls=[bad]), b"[DONE]")
    assert calls["message"]["tool_calls"][0]["function"]["arguments"] == {"text": "Rome"}


def test_an_error_ends_the_stream() -> None:
    assert events({"error": {"message": "gone"}}, b"[DONE]") == [{"error": "gone"}]
    assert events(b"<html>") == [{"error": "The engine's answer is not understood."}]
    assert "before it was complete" in events(delta(content="a"))[-1]["error"]


def test_logprobs() -> None:
    row = {"token": "a", "logprob": -1.0, "bytes": [97]}
    choice = {"delta": {"content": "a"}, "logprobs": {"content": [row | {"top_logprobs": [row]}]}}
    (piece, _) = events({"choices": [choice]}, b"[DONE]")
    known = {"token": "a", "logprob": -1.0}
    assert piece["logprobs"] == [known | {"top_logprobs": [known]}]


def test_errors_of_all_shapes() -> None:
    assert told.error_record({"error": {"message": "a"}}, 400) == {"error": "a"}
    assert told.error_record({"message": "a"}, 400) == {"error": "a"}
    assert told.error_record({"detail": "a"}, 400) == {"error": "a"}
    assert told.error_record({"error": "a"}, 400) == {"error": "a"}
    assert told.error_record(None, 418) == {"error": "status 418"}


SERVED = Served(
    Roster(
        1,
        (
            ServedModel("qwen3-8b", ("org/Qwen3",), "ready", 4096, 7, (Replica("a", "unix:/a"),)),
            ServedModel("phi:mini", (), "starting", 2048, 7),
            ServedModel("odd:latest", (), "starting", 2048, 7),
        ),
    )
)


def test_models_are_listed_with_a_tag() -> None:
    names = [card["name"] for card in models.tags(SERVED, None)["models"]]
    assert names == ["qwen3-8b:latest", "org/Qwen3:latest", "phi:mini", "odd:latest"]
    (running,) = models.running(SERVED, None)["models"]
    assert running["model"] == "qwen3-8b:latest" and running["context_length"] == 4096


def test_names_without_their_tag() -> None:
    assert models.plain("qwen3-8b:latest", SERVED) == "qwen3-8b"
    assert models.plain("ORG/qwen3:latest", SERVED) == "ORG/qwen3"
    assert models.plain("odd:latest", SERVED) == "odd:latest"
    assert models.plain("phi:mini", SERVED) == "phi:mini"


def test_a_key_sees_what_it_may_use() -> None:
    key = Key("k", "00", "t", models=("phi*",))
    assert [card["name"] for card in models.tags(SERVED, key)["models"]] == ["phi:mini"]
    assert models.show("phi:mini", SERVED, key)["capabilities"] == ["completion"]
    with pytest.raises(ModelNotServed):
        models.show("qwen3-8b", SERVED, key)
