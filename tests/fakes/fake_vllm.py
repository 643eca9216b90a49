"""A stand-in for vLLM's API server: a real process with vLLM's flags, routes and error shapes.

    python tests/fakes/fake_vllm.py --uds PATH --served-model-name NAME [any flag of vLLM]

Every knob below is a flag (`--fake-load-s 2`) and an environment variable (`FAKE_LOAD_S=2`).
`GET /fake/last` tells what the last generation request was, `GET /fake/info` who we are,
`GET /fake/served` all generation requests since that was asked last, by their ids.
Standard library only, so it starts in a tenth of a second.
"""

import asyncio
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the folder of a script is on the path, the checkout is not
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fakes import vllm_words as words

KNOBS: dict[str, Any] = {
    "load_s": 0.0,  # seconds until the socket answers
    "says": "",  # a file: print what stands in it while loading
    "die_loading": "",  # a cause in vllm_words: print its traceback and end while loading
    "stay_dead": 0,  # print it, and stay without answering
    "longest_context": 0,  # a longer one does not fit into the KV cache: say so and end
    "die_told": "",  # a cause as for die_loading: if the size of the KV cache is told
    "die_after_s": 0.0,  # end this long after being ready
    "die_after_requests": 0,  # end when this many generation requests have been received
    "die_code": 1,  # with this exit code; negative: by that signal
    "ignore_term": 0,  # SIGTERM does nothing
    "leave_worker": 0,  # fork a worker in a session of its own that ignores SIGTERM
    "stall_s": 0.0,  # silence before the first byte of an answer
    "cut_after": 0,  # drop the connection after this many chunks
    "rate": 0.0,  # chunks per second, 0 = as fast as the socket takes them
    "chunks": 8,  # chunks in an answer
    "chunk_text": " Paris",  # text of each
    "echo": "",  # the first word of the request that begins so is said in each too, backwards
    "cached_tokens": 0,  # of each prompt are in the prefix cache
    "head_s": 0.0,  # silence between the head of a stream and its first event
    "sick_after_s": 0.0,  # /health answers 503 from then on
    "error": 0,  # every generation request is answered with this status
    "idle_close_s": 0.0,  # close keep-alive connections that are idle for so long
}


def read_knobs(
    argv: Sequence[str], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Our knobs, and vLLM's flags as they came (`{"uds": …}`)."""
    knobs = {
        name: type(default)(environ.get(f"FAKE_{name.upper()}", default))
        for name, default in KNOBS.items()
    }
    flags: dict[str, str] = {}
    parts: list[str] = []
    for word in argv:
        parts += word.split("=", 1) if word.startswith("--") else [word]
    for here, after in zip(parts, [*parts[1:], "--"], strict=True):
        if here.startswith("--"):
            flags[here[2:]] = "" if after.startswith("--") else after
    for name, default in KNOBS.items():
        flag = f"fake-{name.replace('_', '-')}"
        if flag in flags:
            knobs[name] = type(default)(flags[flag])
    return knobs, flags


class Fake:
    """The state of one fake server."""

    def __init__(self, knobs: dict[str, Any], flags: dict[str, str]) -> None:
        self.knobs = knobs
        self.flags = flags
        self.name = flags.get("served-model-name") or flags.get("model", "fake")
        self.context = int(flags.get("max-model-len") or 4096)
        self.running = self.received = self.generated = self.aborted = self.most_running = 0
        # By x-request-id: the client's `user`, tokens of the prompt and the answer so far, whether
        # the engine came to its end, and to how many requests of this id.
        self.served: dict[str, list[Any]] = {}
        self.last: dict[str, Any] = {}
        self.worker_pid = 0
        self.ready_at = time.monotonic()

    def die(self) -> None:
        code = self.knobs["die_code"]
        print(words.FATAL, file=sys.stderr, flush=True)
        if code < 0:
            os.kill(os.getpid(), -code)
        os._exit(code)

    def metrics(self) -> bytes:
        rows = (
            ("vllm:num_requests_running", "gauge", self.running),
            ("vllm:num_requests_waiting", "gauge", 0),
            ("vllm:kv_cache_usage_perc", "gauge", self.running / 100),
            ("vllm:generation_tokens_total", "counter", self.generated),
            ("vllm:request_success_total", "counter", self.received - self.aborted),
        )
        return words.metrics(self.name, rows)

    def refusal(self, body: Any) -> tuple[int, str, str] | None:
        """vLLM's status, type and message if it would not take this body."""
        if self.knobs["error"]:
            return self.knobs["error"], "InternalServerError", "the fake was told to fail"
        if not isinstance(body, dict):
            return 400, "BadRequestError", "body is not an object"
        if body.get("model") not in (None, self.name):
            return 404, "NotFoundError", f"The model `{body['model']}` does not exist."
        if (prompt := words.count_tokens(body)) > self.context:
            return 400, "BadRequestError", words.too_long(self.context, prompt)
        return None

    def length(self, body: dict[str, Any]) -> int:
        """Tokens of the answer."""
        wanted = body.get("max_tokens") or body.get("max_completion_tokens") or math.inf
        return int(min(wanted, self.knobs["chunks"]))

    def note(self, id: str, body: dict[str, Any]) -> list[Any]:
        times = self.served[id][-1] + 1 if id in self.served else 1
        self.served[id] = noted = [body.get("user"), words.count_tokens(body), 0, False, times]
        return noted

    def text(self, body: dict[str, Any]) -> str:
        """Of each piece."""
        mark = self.knobs["echo"]
        found = mark and re.search(re.escape(mark) + r"\w*", json.dumps(body))
        return f"{self.knobs['chunk_text']}{f' {found[0][::-1]}' if found else ''}"

    async def pieces(self, body: dict[str, Any], noted: list[Any]) -> AsyncIterator[str]:
        text = self.text(body)
        for number in range(self.length(body)):
            if number and self.knobs["rate"]:
                await asyncio.sleep(1 / self.knobs["rate"])
            if self.knobs["cut_after"] and number >= self.knobs["cut_after"]:
                raise ConnectionAbortedError
            self.generated += 1
            noted[2] += 1
            yield text
        noted[3] = True


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive. One request at a time, as every client of vLLM does it."""

    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.buffer = b""
        self.task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport
        self.writable = asyncio.Event()
        self.writable.set()
        self.idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        if self.idle is not None:
            self.idle.cancel()
        self.buffer += data
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        lines = head.decode("latin-1").split("\r\n")
        fields = [line.partition(":") for line in lines[1:]]
        headers = {key.lower(): value.strip() for key, _, value in fields}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        method, target, _ = lines[0].split(" ", 2)
        work = self.handle(method, target, headers, rest[:length])
        self.task = asyncio.get_running_loop().create_task(work)

    def answer(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.transport.write(
            f"HTTP/1.1 {status} X\r\ndate: now\r\nserver: uvicorn\r\ncontent-type: {kind}\r\n"
            f"content-length: {len(content)}\r\n\r\n".encode()
            + content
        )

    def answer_json(self, status: int, record: Any) -> None:
        self.answer(status, json.dumps(record).encode())

    async def handle(self, method: str, target: str, headers: dict[str, str], raw: bytes) -> None:
        fake, path = self.fake, target.partition("?")[0]
        if method == "POST" and path in words.ROUTES:
            await self.generate(path, headers, raw)
        elif path == "/health":
            sick = fake.knobs["sick_after_s"]
            self.answer(503 if sick and time.monotonic() - fake.ready_at > sick else 200, b"")
        elif path == "/metrics":
            self.answer(200, fake.metrics(), "text/plain; version=0.0.4")
        elif path == "/v1/models":
            card = {"id": fake.name, "object": "model", "max_model_len": fake.context}
            self.answer_json(200, {"object": "list", "data": [card]})
        elif path == "/fake/last":
            self.answer_json(200, fake.last)
        elif path == "/fake/served":
            told, fake.served = fake.served, {}
            self.answer_json(200, told)
        elif path == "/fake/info":
            facts: dict[str, Any] = {"pid": os.getpid(), "worker_pid": fake.worker_pid}
            facts |= {"received": fake.received, "aborted": fake.aborted}
            facts |= {"running": fake.running, "most_running": fake.most_running}
            facts |= {"flags": fake.flags, "environ": dict(os.environ)}
            self.answer_json(200, facts)
        else:
            self.answer_json(404, {"detail": "Not Found"})
        if fake.knobs["idle_close_s"]:
            loop = asyncio.get_running_loop()
            self.idle = loop.call_later(fake.knobs["idle_close_s"], self.transport.close)

    async def generate(self, path: str, headers: dict[str, str], raw: bytes) -> None:
        fake = self.fake
        fake.received += 1
        fake.last = {"path": path, "headers": headers, "body": raw.decode("utf-8", "replace")}
        if fake.knobs["die_after_requests"] and fake.received >= fake.knobs["die_after_requests"]:
            fake.die()
        body = json.loads(raw)
        if (refusal := fake.refusal(body)) is not None:
            return self.answer_json(refusal[0], words.error(*refusal))
        noted = fake.note(headers.get("x-request-id", ""), body)
        fake.running += 1
        fake.most_running = max(fake.most_running, fake.running)
        try:
            await asyncio.sleep(fake.knobs["stall_s"])
            if body.get("stream"):
                await self.stream(path, body, noted)
            else:
                text = "".join([piece async for piece in fake.pieces(body, noted)]).strip()
                used = words.usage(body, fake.length(body), fake.knobs["cached_tokens"])
                self.answer_json(200, words.whole(path, fake.name, text, used))
        except asyncio.CancelledError:
            fake.aborted += 1
            raise
        except ConnectionAbortedError:
            self.transport.abort()
        finally:
            fake.running -= 1

    async def stream(self, path: str, body: dict[str, Any], noted: list[Any]) -> None:
        fake, started = self.fake, False
        cached = fake.knobs["cached_tokens"]
        pieces = fake.pieces(body, noted)
        async for event in words.events(path, fake.name, body, pieces, cached):
            if not started:
                self.transport.write(
                    b"HTTP/1.1 200 OK\r\ndate: now\r\nserver: uvicorn\r\ncontent-type: "
                    b"text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                started = True
                await asyncio.sleep(fake.knobs["head_s"])
            self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            await self.writable.wait()
        self.transport.write(b"0\r\n\r\n")


def leave_worker() -> int:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
        os._exit(0)
    return pid


async def serve(fake: Fake) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    uds, knobs = fake.flags.get("uds"), fake.knobs
    if knobs["ignore_term"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        loop.add_signal_handler(signal.SIGTERM, ended.set)
    if knobs["says"]:
        print(Path(knobs["says"]).read_text(), file=sys.stderr, flush=True)
    await asyncio.sleep(knobs["load_s"])
    is_told = "kv-cache-memory-bytes" in fake.flags
    if cause := knobs["die_loading"] or (is_told and knobs["die_told"]):
        print(words.last_words(cause), file=sys.stderr, flush=True)
        if knobs["stay_dead"]:
            await ended.wait()
        os._exit(1)
    if 0 < knobs["longest_context"] < fake.context:
        print(words.no_room(fake.context, knobs["longest_context"]), file=sys.stderr, flush=True)
        os._exit(1)
    if uds:
        Path(uds).unlink(missing_ok=True)
        await loop.create_unix_server(lambda: Connection(fake), uds)
    else:
        port = int(fake.flags.get("port") or 8000)
        await loop.create_server(lambda: Connection(fake), "127.0.0.1", port)
    fake.ready_at = time.monotonic()
    if knobs["die_after_s"]:
        loop.call_later(knobs["die_after_s"], fake.die)
    print("INFO:     Application startup complete.", file=sys.stderr, flush=True)
    await ended.wait()


def main(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    fake = Fake(*read_knobs(argv, environ))
    banner = words.BANNER.format(context=fake.context, times=93184 / fake.context)
    print(banner, file=sys.stderr, flush=True)
    if fake.knobs["leave_worker"]:
        fake.worker_pid = leave_worker()
    asyncio.run(serve(fake))


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
