"""What vLLM says: the answers, events, errors and last words that the fake repeats."""

import json
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

Record = dict[str, Any]

ROUTES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
)
BANNER = """\
INFO 01-01 00:00:00 [api_server.py:1] vLLM API server version 0.32.0
INFO 01-01 00:00:00 [kv.py:1] CPU KV cache size: 93,184 tokens, Maximum concurrency for \
{context:,} tokens per request: {times:.2f}x"""
CACHE_CONFIG = """\
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",cache_dtype="auto",engine="0",\
kv_cache_size_tokens="93184",num_gpu_blocks="728",sliding_window="None"} 1.0
"""
FATAL = "ERROR 01-01 00:00:00 [core.py:1] EngineCore encountered a fatal error."
_CORE = "(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1000] "
_LAST_WORDS = f"""\
{_CORE}EngineCore failed to start.
{_CORE}Traceback (most recent call last):
{_CORE}  File "vllm/v1/engine/core.py", line 990, in run_engine_core
{_CORE}%s
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "vllm/v1/engine/core_client.py", line 480, in __init__
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. \
Failed core proc(s): {{}}"""
_CAUSES = {
    "memory": "ValueError: No available memory for the cache blocks. Try increasing "
    "`gpu_memory_utilization` when initializing the engine.",
    "context": "ValueError: To serve at least one request with the models's max seq len (32768), "
    "(3.50 GiB KV cache is needed, which is larger than the available KV cache memory (2.00 GiB). "
    "Based on the available memory, the estimated maximum model length is 18720.",
    "cuda_oom": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has "
    "a total capacity of 23.55 GiB of which 1.20 GiB is free.",
    "graphs": f'File "vllm/v1/worker/gpu_worker.py", line 960, in capture_model\n{_CORE}'
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB.",
    "architecture": "ValueError: Model architectures ['FooForCausalLM'] are not supported for now.",
    "weights": "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge",
}


def last_words(cause: str) -> str:
    """The end of the log of a vLLM that dies while loading, by the name of its cause."""
    return _LAST_WORDS % _CAUSES[cause]


def no_room(context: int, longest: int) -> str:
    """The end of the log of a vLLM whose KV cache does not hold one request of full length."""
    return _LAST_WORDS % (
        "ValueError: To serve at least one request with the models's max seq len "
        f"({context}), (3.50 GiB KV cache is needed, which is larger than the available KV cache "
        "memory (2.00 GiB). Based on the available memory, the estimated maximum model length is "
        f"{longest}."
    )


def error(status: int, kind: str, message: str) -> Record:
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def too_long(context: int, prompt: int) -> str:
    return (
        f"This model's maximum context length is {context} tokens. However, your request has "
        f"{prompt} input tokens. Please reduce the length of the input messages."
    )


def count_tokens(body: Record) -> int:
    """A word is a token."""
    text = body.get("messages") or body.get("prompt") or body.get("input") or ""
    return len(json.dumps(text).split())


def metrics(name: str, rows: tuple[tuple[str, str, float], ...]) -> bytes:
    """Prometheus text of `(name, kind, value)` rows, with a foreign series before them."""
    label = f'{{engine="0",model_name="{name}"}}'
    text = "# HELP python_info Python.\n# TYPE python_info gauge\npython_info 1.0\n"
    text += CACHE_CONFIG
    for series, kind, value in rows:
        base = series.removesuffix("_total") if kind == "counter" else series
        text += f"# HELP {base} About {base}.\n# TYPE {base} {kind}\n"
        text += f"{series}{label} {float(value)}\n"
    return text.encode()


def usage(body: Record, answer_tokens: int, cached: int = 0) -> Record:
    """`cached`: tokens of the prompt that were in the prefix cache, if the prompt has as many."""
    prompt = count_tokens(body)
    details = {"cached_tokens": min(cached, prompt)} if cached else None
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + answer_tokens,
        "completion_tokens": answer_tokens,
        "prompt_tokens_details": details,
    }


def _cached(used: Record) -> int:
    return int((used["prompt_tokens_details"] or {}).get("cached_tokens", 0))


def whole(path: str, name: str, text: str, used: Record) -> Record:
    """The unstreamed answer of a route."""
    base: Record = {"id": "fake-1", "created": 1, "model": name}
    choice: Record = {"index": 0, "finish_reason": "stop"}
    if path == "/v1/chat/completions":
        choice["message"] = {"role": "assistant", "content": text}
        return base | {"object": "chat.completion", "choices": [choice], "usage": used}
    if path == "/v1/completions":
        choice["text"] = text
        return base | {"object": "text_completion", "choices": [choice], "usage": used}
    if path == "/v1/embeddings":
        row = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}
        return base | {"object": "list", "data": [row], "usage": used}
    if path == "/v1/responses":
        return _response(base, text, used)
    if path == "/v1/messages":
        return _message(name, [{"type": "text", "text": text}], used)
    if path == "/v1/messages/count_tokens":
        return {"input_tokens": used["prompt_tokens"]}
    if path == "/tokenize":
        return {"count": used["prompt_tokens"], "max_model_len": 4096, "tokens": [1, 2, 3]}
    return {"prompt": text}


def _response(base: Record, text: str, used: Record) -> Record:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": "msg-1", "status": "completed", "role": "assistant"}
    more = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "status": "completed"}
    output = [item | {"content": [part]}]
    counts = {
        "input_tokens": used["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": _cached(used), "cached_tokens_per_turn": []},
        "output_tokens": used["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0, "tool_output_tokens": 0},
        "total_tokens": used["total_tokens"],
    }
    end = {"usage": counts, "user": None}
    return base | more | {"object": "response", "created_at": 1, "output": output} | end


def _anthropic(used: Record) -> Record:
    """Anthropic's input is what was not in the cache."""
    counts = {"input_tokens": used["prompt_tokens"], "output_tokens": used["completion_tokens"]}
    if cached := _cached(used):
        counts |= {"input_tokens": counts["input_tokens"] - cached}
        counts |= {"cache_read_input_tokens": cached}
    return counts


def _message(name: str, content: list[Record], used: Record) -> Record:
    counts = _anthropic(used)
    record = {"id": "msg-1", "type": "message", "role": "assistant", "model": name}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return record | end | {"content": content, "usage": counts}


async def events(
    path: str, name: str, body: Record, pieces: AsyncIterable[str], cached: int = 0
) -> AsyncIterator[bytes]:
    """The server-sent events of a route, one for each piece and those around them."""
    number, text = 0, ""
    if path == "/v1/messages":
        start = _message(name, [], usage(body, 0, cached)) | {"stop_reason": None}
        block = {"type": "text", "text": ""}
        yield _named("message_start", {"message": start})
        yield _named("content_block_start", {"index": 0, "content_block": block})
    async for piece in pieces:
        text += piece
        number += 1
        yield _delta(path, name, piece, number)
    if path == "/v1/messages":
        end = {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": number}}
        yield _named("content_block_stop", {"index": 0})
        yield _named("message_delta", end)
        yield _named("message_stop", {})
    elif path == "/v1/responses":
        answer = whole(path, name, text.strip(), usage(body, number, cached))
        yield _named("response.completed", {"response": answer, "sequence_number": number + 1})
    else:
        if (body.get("stream_options") or {}).get("include_usage"):
            yield _data(path, name, {"choices": [], "usage": usage(body, number, cached)})
        yield b"data: [DONE]\n\n"


def _delta(path: str, name: str, piece: str, number: int) -> bytes:
    if path == "/v1/messages":
        delta = {"type": "text_delta", "text": piece}
        return _named("content_block_delta", {"index": 0, "delta": delta})
    if path == "/v1/responses":
        place = {"item_id": "msg-1", "output_index": 0, "content_index": 0, "logprobs": []}
        record = place | {"delta": piece, "sequence_number": number}
        return _named("response.output_text.delta", record)
    part: Record = {"text": piece} if path == "/v1/completions" else {"delta": {"content": piece}}
    return _data(path, name, {"choices": [{"index": 0, "finish_reason": None} | part]})


def _data(path: str, name: str, record: Record) -> bytes:
    kind = "text_completion" if path == "/v1/completions" else "chat.completion.chunk"
    base = {"id": "fake-1", "created": 1, "model": name, "object": kind}
    return b"data: " + json.dumps(base | record).encode() + b"\n\n"


def _named(kind: str, record: Record) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | record)}\n\n".encode()
