"""What an Ollama client asks for, as the body of a request of OpenAI's API. Pure."""

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from serve.errors import BadRequest

_Wish = TypeVar("_Wish", "ChatWish", "GenerateWish", "EmbedWish", "ShowWish")

# Ollama's option → OpenAI's (or vLLM's) field. What is not here belongs to another runtime
# (`num_ctx`, `num_gpu`, `mirostat`, …) and is left out, as Ollama leaves out what it does not know.
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "stop": "stop",
}
# How the base64 of a file begins → what it is.
_IMAGES = {"/9j/": "jpeg", "iVBORw0KGgo": "png", "R0lGOD": "gif", "UklGR": "webp"}


class _Function(msgspec.Struct):
    name: str
    arguments: dict[str, Any] = {}


class _ToolCall(msgspec.Struct):
    function: _Function


class _Message(msgspec.Struct):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_name: str | None = None


class _Common(msgspec.Struct, kw_only=True):
    model: str
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    keep_alive: Any = None

    @property
    def is_stream(self) -> bool:
        return self.stream is not False  # streams unless told otherwise


class ChatWish(_Common, kw_only=True):
    """Body of `/api/chat`."""

    messages: list[_Message] | None = None
    tools: list[Any] | None = None


class GenerateWish(_Common, kw_only=True):
    """Body of `/api/generate`."""

    prompt: str | None = None
    system: str | None = None
    suffix: str | None = None
    images: list[str] | None = None
    raw: bool | None = None
    template: str | None = None
    context: list[Any] | None = None


class EmbedWish(msgspec.Struct, kw_only=True):
    """Body of `/api/embed`; `prompt` that of `/api/embeddings`."""

    model: str
    texts: str | list[str] | None = msgspec.field(default=None, name="input")
    prompt: str | None = None
    truncate: bool | None = None
    dimensions: int | None = None


class ShowWish(msgspec.Struct):
    """Body of `/api/show`."""

    model: str | None = None
    name: str | None = None  # the same, in older clients


def read_wish(body: bytes, kind: type[_Wish]) -> _Wish:
    """The body, parsed; BadRequest if it is not what the route takes."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("The body is not valid JSON.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None


def chat_body(wish: ChatWish, model: str) -> dict[str, Any]:
    """The body for `/v1/chat/completions`."""
    body = _common(wish, model) | {"messages": _messages(wish.messages or [])}
    if wish.tools:
        body["tools"] = wish.tools
    return body | _thinking(wish.think)


def generate_body(wish: GenerateWish, model: str) -> dict[str, Any]:
    """The body for `/v1/chat/completions`, or for `/v1/completions` where `is_plain` says so."""
    for name in ("template", "context"):
        if getattr(wish, name):
            raise BadRequest(f"{name} is not supported: use /api/chat.", param=name)
    prompt = wish.prompt or ""
    if is_plain(wish):
        suffix = {"suffix": wish.suffix} if wish.suffix else {}
        return _common(wish, model) | {"prompt": prompt} | suffix
    asked = [_Message("system", wish.system)] if wish.system else []
    asked.append(_Message("user", prompt, images=wish.images))
    return _common(wish, model) | {"messages": _messages(asked)} | _thinking(wish.think)


def is_plain(wish: GenerateWish) -> bool:
    """Whether the prompt goes to the model as it is, without its chat template."""
    return bool(wish.raw or wish.suffix)


def embed_body(wish: EmbedWish, model: str) -> dict[str, Any]:
    """The body for `/v1/embeddings`."""
    asked = wish.prompt if wish.texts is None else wish.texts
    body: dict[str, Any] = {"model": model, "input": asked or "", "encoding_format": "float"}
    if wish.dimensions:
        body["dimensions"] = wish.dimensions
    if wish.truncate:
        body["truncate_prompt_tokens"] = -1
    return body


def _common(wish: ChatWish | GenerateWish, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "stream": wish.is_stream}
    if wish.is_stream:
        body["stream_options"] = {"include_usage": True}
    for name, value in (wish.options or {}).items():
        if name in _OPTIONS and value is not None:
            body[_OPTIONS[name]] = value
    _set_if(body, "seed", (wish.options or {}).get("seed"), lambda seed: seed >= 0)
    # Without one, or with -1 or -2, the answer may be as long as there is room.
    _set_if(body, "max_tokens", (wish.options or {}).get("num_predict"), lambda most: most > 0)
    if wish.format:
        body["response_format"] = _format(wish.format)
    if wish.logprobs and isinstance(wish, GenerateWish) and is_plain(wish):
        body["logprobs"] = wish.top_logprobs or 0
    elif wish.logprobs:
        body |= {"logprobs": True, "top_logprobs": wish.top_logprobs or 0}
    return body


def _set_if(body: dict[str, Any], name: str, value: Any, is_meant: Callable[[int], bool]) -> None:
    if isinstance(value, int) and is_meant(value):
        body[name] = value


def _format(wanted: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(wanted, dict):
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}
    if wanted != "json":
        raise BadRequest('format must be "json" or a JSON schema.', param="format")
    return {"type": "json_object"}


def _thinking(think: bool | str | None) -> dict[str, Any]:
    if think is None:
        return {}
    if isinstance(think, str):
        return {"reasoning_effort": think}
    return {"chat_template_kwargs": {"enable_thinking": think}}


def _messages(asked: list[_Message]) -> list[dict[str, Any]]:
    """OpenAI's messages. Ollama's tool calls have no ids: they get them in the order in which they
    come, and each answer of a tool is that to the oldest call (of its name) without one."""
    waiting: deque[tuple[str, str]] = deque()  # id and name
    made: list[dict[str, Any]] = []
    for message in asked:
        record: dict[str, Any] = {"role": message.role, "content": _content(message)}
        if message.thinking:
            record["reasoning_content"] = message.thinking
        if message.tool_calls:
            record["tool_calls"] = calls = [
                _call(f"call_{len(made)}_{number}", call.function)
                for number, call in enumerate(message.tool_calls)
            ]
            waiting.extend((call["id"], call["function"]["name"]) for call in calls)
        if message.role == "tool":
            record["tool_call_id"] = _answered(waiting, message.tool_name)
        made.append(record)
    return made


def _call(id: str, function: _Function) -> dict[str, Any]:
    arguments = msgspec.json.encode(function.arguments).decode()
    return {
        "id": id,
        "type": "function",
        "function": {"name": function.name, "arguments": arguments},
    }


def _answered(waiting: deque[tuple[str, str]], name: str | None) -> str:
    fitting = next((each for each in waiting if name is None or each[1] == name), None)
    if fitting is None:
        fitting = waiting[0] if waiting else ("call_0_0", "")
    if fitting in waiting:
        waiting.remove(fitting)
    return fitting[0]


def _content(message: _Message) -> str | list[dict[str, Any]]:
    text = message.content or ""
    if not message.images:
        return text
    images = [{"type": "image_url", "image_url": {"url": _url(one)}} for one in message.images]
    return [{"type": "text", "text": text}, *images] if text else images


def _url(image: str) -> str:
    kind = next((kind for start, kind in _IMAGES.items() if image.startswith(start)), "jpeg")
    return f"data:image/{kind};base64,{image}"
