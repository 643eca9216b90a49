"""Every way by which words of clients come into a house: routes, dialects, and all that is refused.

Each deed sends some requests that have a canary wherever a client can put words.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.stack.client import CHAT, Client, Seen

Deed = Callable[["Cage"], Awaitable[Seen]]
_LATEST_LEAVE_S = 0.05
_POLL_S = 0.1
_POLLS = 100


@dataclass(frozen=True)
class Texts:
    """Of keys: of somebody who may do all, who may ask once a minute, who may use one model."""

    admin: str
    poor: str
    narrow: str


@dataclass
class Cage:
    """What a deed has: `word` is its canary."""

    client: Client
    texts: Texts
    word: str
    dice: random.Random
    model: str = "quick"

    async def post(self, path: str, body: Any, **how: Any) -> Seen:
        return await self.client.ask(body, path, headers=self.headers(), **how)

    def headers(self, key: str | None = None) -> dict[str, str]:
        """With a canary in all that is not ours."""
        told = {"user-agent": self.word, "cookie": f"session={self.word}", "x-mine": self.word}
        told |= {"x-request-id": self.word, "referer": f"http://{self.word}/", "tracestate": "a=b"}
        return told | {"authorization": f"Bearer {self.texts.admin if key is None else key}"}

    def chat(self, **more: Any) -> dict[str, Any]:
        said = [{"role": role, "content": f"{self.word} said"} for role in ("system", "user")]
        parameters = {"type": "object", "properties": {self.word: {"description": self.word}}}
        function = {"name": self.word, "description": self.word, "parameters": parameters}
        return {
            "model": self.model, "messages": said, "user": self.word, "cache_salt": self.word,
            "stop": [self.word], "metadata": {self.word: self.word}, "unknown": self.word,
            "tools": [{"type": "function", "function": function}], "max_tokens": 6,
        } | more  # fmt: skip


def _posting(path: str, make: Callable[[Cage], Any], **how: Any) -> Deed:
    async def deed(cage: Cage) -> Seen:
        return await cage.post(path, make(cage), **how)

    return deed


def _input(cage: Cage, **more: Any) -> dict[str, Any]:
    return {"model": cage.model, "input": f"{cage.word} {cage.word}", "user": cage.word} | more


def _prompt(cage: Cage, **more: Any) -> dict[str, Any]:
    return {"model": cage.model, "prompt": f"{cage.word} said", "suffix": cage.word} | more


def _on(model: str, deed: Deed) -> Deed:
    async def elsewhere(cage: Cage) -> Seen:
        cage.model = model
        return await deed(cage)

    return elsewhere


def _with_key(pick: Callable[[Cage], str], path: str = CHAT) -> Deed:
    async def deed(cage: Cage) -> Seen:
        headers = cage.headers(pick(cage))
        return await cage.client.ask(cage.chat(), path, headers=headers)

    return deed


async def _leaves(cage: Cage) -> Seen:
    body = cage.chat(model="slow", stream=cage.dice.random() < 0.7)
    return await cage.post(CHAT, body, leave_after_s=cage.dice.uniform(0.001, _LATEST_LEAVE_S))


async def _raw(cage: Cage) -> Seen:
    """Framing that is refused, with words before and after what is wrong."""
    wrong = (
        f"POST {CHAT} HTTP/1.1\r\nhost: {cage.word}\r\ncontent-length: 3\r\n"
        f"transfer-encoding: chunked\r\n\r\n{cage.word}",
        f"POST /{cage.word} HTTP/1.1\nhost: a\n\n{cage.word}",
        f"{cage.word} / HTTP/1.1\r\nhost: a\r\n{cage.word}\r\n\r\n",
        f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nx-long: {cage.word * 4000}\r\n\r\n",
        f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 900\r\n\r\n{cage.word}",
        cage.word * 3,
    )
    return await cage.client.send_raw(cage.dice.choice(wrong).encode())


async def _looks(cage: Cage) -> Seen:
    word = cage.word
    method, path = cage.dice.choice((
        ("GET", f"/v1/models/{word}"), ("GET", f"/{word}"), ("GET", f"/v1/models?{word}={word}"),
        ("PUT", f"{CHAT}?{word}"), ("DELETE", f"/v1/files/{word}"), ("GET", f"/admin/{word}"),
        ("GET", f"/v1/batches/{word}"), ("POST", f"/v1/batches/{word}/cancel"),
        ("GET", f"/v1/files/{word}/content"), ("GET", f"/admin/keys/{word}"), ("GET", "/api/tags"),
        ("GET", f"/api/ps?{word}"), ("GET", "/v1/models"), ("GET", f"/admin/status?{word}"),
        ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", f"/ready?{word}"),
        ("POST", f"/admin/keys/{word}/revoke"),
    ))  # fmt: skip
    return await cage.client.ask(b"", path, method=method, headers=cage.headers())


async def _admin(cage: Cage) -> Seen:
    path = cage.dice.choice(("/admin/models/load", "/admin/models/unload", "/admin/keys"))
    wishes: tuple[dict[str, Any], ...] = ({"model": cage.word, "x": 1}, {cage.word: cage.word})
    return await cage.post(path, cage.dice.choice(wishes))


async def _batch(cage: Cage) -> Seen:
    """A batch from its file to its answers, which are fetched by some and left there by others."""
    word, end = cage.word, "-------------------------x"
    line = {"custom_id": word, "method": "POST", "url": CHAT, "body": cage.chat()}
    lines = "".join(json.dumps(line | {"custom_id": f"{word}{n}"}) + "\n" for n in range(3))
    form = (
        f'--{end}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{end}\r\n'
        f'content-disposition: form-data; name="file"; filename="{word}.jsonl"\r\n\r\n{lines}\r\n'
        f"--{end}--\r\n"
    )
    headers = cage.headers() | {"content-type": f"multipart/form-data; boundary={end}"}
    seen = await cage.client.ask(form.encode(), "/v1/files", headers=headers)
    if seen.status != 200:
        return seen
    wish = {"input_file_id": json.loads(seen.content)["id"], "endpoint": CHAT}
    wish |= {"completion_window": "24h", "metadata": {word: word}}
    seen = await cage.post("/v1/batches", wish)
    for _ in range(_POLLS):
        if seen.status != 200 or (batch := json.loads(seen.content))["status"] == "completed":
            break
        await asyncio.sleep(_POLL_S)
        path = f"/v1/batches/{batch['id']}"
        seen = await cage.client.ask(b"", path, method="GET", headers=cage.headers())
    if seen.status == 200 and batch.get("output_file_id") and cage.dice.random() < 0.5:
        path = f"/v1/files/{batch['output_file_id']}/content"
        seen = await cage.client.ask(b"", path, method="GET", headers=cage.headers())
    return seen


async def _audio(cage: Cage) -> Seen:
    word, end = cage.word, "-------------------------y"
    form = (
        f'--{end}\r\ncontent-disposition: form-data; name="model"\r\n\r\nquick\r\n--{end}\r\n'
        f'content-disposition: form-data; name="prompt"\r\n\r\n{word}\r\n--{end}\r\n'
        f'content-disposition: form-data; name="file"; filename="{word}.wav"\r\n\r\n{word}\r\n'
        f"--{end}--\r\n"
    )
    headers = cage.headers() | {"content-type": f"multipart/form-data; boundary={end}"}
    return await cage.client.ask(form.encode(), "/v1/audio/transcriptions", headers=headers)


def _messages(cage: Cage, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": f"{cage.word} said"}]
    told = {"model": cage.model, "max_tokens": 5, "system": cage.word, "messages": said}
    return told | {"metadata": {"user_id": cage.word}} | more


def _ollama(cage: Cage, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": cage.word, "images": []}]
    return {"model": cage.model, "messages": said, "options": {"stop": [cage.word]}} | more


_CHAT = _posting(CHAT, Cage.chat)
_STREAM = _posting(CHAT, lambda cage: cage.chat(stream=True))
_IMAGE = "https://{0}.example/{0}.png"

# Name → how often among all, and the deed.
DEEDS: dict[str, tuple[int, Deed]] = {
    "chat": (6, _CHAT),
    "chat, a stream": (6, _STREAM),
    "chat, a client that leaves": (6, _leaves),
    "completions": (3, _posting("/v1/completions", _prompt)),
    "completions, a stream": (3, _posting("/v1/completions", lambda c: _prompt(c, stream=True))),
    "embeddings": (3, _posting("/v1/embeddings", _input)),
    "responses": (3, _posting("/v1/responses", _input)),
    "responses, a stream": (3, _posting("/v1/responses", lambda c: _input(c, stream=True))),
    "messages": (3, _posting("/v1/messages", _messages)),
    "messages, a stream": (3, _posting("/v1/messages", lambda c: _messages(c, stream=True))),
    "count_tokens": (2, _posting("/v1/messages/count_tokens", _messages)),
    "tokenize": (2, _posting("/tokenize", _prompt)),
    "detokenize": (2, _posting("/detokenize", lambda c: {"model": "quick", "tokens": [c.word]})),
    "rerank, which the engine has not": (2, _posting("/v1/rerank", lambda c: {
        "model": c.model, "query": c.word, "documents": [c.word]})),
    "audio, which the engine has not": (2, _audio),
    "Ollama, chat": (3, _posting("/api/chat", _ollama)),
    "Ollama, generate": (3, _posting("/api/generate", _prompt)),
    "Ollama, embed": (2, _posting("/api/embed", _input)),
    "Ollama, show": (1, _posting("/api/show", lambda c: {"model": c.word})),
    "Ollama, bad": (1, _posting("/api/chat", lambda c: {"model": c.word, "messages": c.word})),
    "batches": (1, _batch),
    "other paths and methods": (8, _looks),
    "admin": (2, _admin),
    "framing": (3, _raw),
    "no JSON": (3, _posting(CHAT, lambda c: f'{{"messages": "{c.word}", {c.word}'.encode())),
    "no UTF-8": (2, _posting(CHAT, lambda c: f'{{"model": "{c.word}'.encode() + b'\xff\xfe"}')),
    "no object": (1, _posting(CHAT, lambda c: [c.word])),
    "too deep": (2, _posting(CHAT, lambda c: (
        f'{{"model": "{c.word}", "messages": {"[" * 500}"{c.word}"{"]" * 500}}}'.encode()))),
    "too large": (1, _posting(CHAT, lambda c: c.chat(filler=c.word * 20_000))),
    "too many answers": (2, _posting(CHAT, lambda c: c.chat(n=1000))),
    "an image from elsewhere": (2, _posting(CHAT, lambda c: c.chat(messages=[{
        "role": "user", "content": [
            {"type": "image_url", "image_url": {"url": _IMAGE.format(c.word)}}]}]))),
    "a grammar too large": (1, _posting(CHAT, lambda c: c.chat(guided_regex=c.word * 5000))),
    "longer than the context": (2, _posting(CHAT, lambda c: c.chat(messages=[{
        "role": "user", "content": f"{c.word} " * 3000}]))),
    "unknown model": (3, _posting(CHAT, lambda c: c.chat(model=c.word))),
    "wrong key": (3, _with_key(lambda cage: cage.word)),
    "no key": (2, _with_key(lambda cage: "")),
    "key of the wrong scope": (1, _with_key(lambda cage: cage.texts.poor, "/admin/keys")),
    "key without that model": (2, _with_key(lambda cage: cage.texts.narrow)),
    "over the limit": (4, _with_key(lambda cage: cage.texts.poor)),
    "engine refuses": (3, _on("failing", _CHAT)),
    "engine breaks off a stream": (4, _on("cutting", _STREAM)),
    "engine breaks off an answer": (3, _on("cutting", _CHAT)),
    "engine dies": (1, _on("mortal", _STREAM)),
    "engine is loading": (2, _on("loading", _STREAM)),
}  # fmt: skip
