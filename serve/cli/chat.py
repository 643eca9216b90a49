"""`inhouse chat`: a conversation in the terminal, through the running server's own OpenAI API."""

import json
import readline  # noqa: F401  (gives input() line editing and a history)
import sys
from collections.abc import Generator, Iterator
from typing import Annotated, Any, Self

import httpx
import typer

from serve.cli import live, output
from serve.cli.flags import JsonFlag, with_settings
from serve.control import Status
from serve.errors import (
    BadRequest,
    ControlLost,
    InhouseError,
    ModelNotReady,
    ModelNotServed,
    ShuttingDown,
    Unauthorized,
)
from serve.settings import Settings

Turn = dict[str, str]


@with_settings("paths", "server.api_key")
def chat(
    settings: Settings,
    model: Annotated[
        str | None, typer.Argument(help="Nothing named: the first that is ready.")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Ask this and leave.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Talk to a model that is served. Ctrl-C stops an answer, Ctrl-D leaves."""
    status = live.client(settings).status()
    model = model or first_ready(status)
    with Chat(status.address, model, api_key(settings)) as chatter:
        if message is None and not sys.stdin.isatty():
            message = sys.stdin.read()
        if message is not None:
            _ask_once(chatter, message, as_json)
        else:
            _converse(chatter)


class Chat:
    """A conversation: `say` streams the answer and remembers both."""

    def __init__(self, address: str, model: str, key: str | None) -> None:
        self.model = model
        self._turns: list[Turn] = []
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(10.0, read=None)
        self._http = httpx.Client(
            base_url=address,
            headers=headers,
            timeout=timeout,
            trust_env=False,
            verify=False,  # it is this machine's own, whoever its certificate is made out to
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def say(self, text: str) -> Generator[str, None, None]:
        """Pieces of the answer. What was heard is remembered, however the stream ends."""
        self._turns.append({"role": "user", "content": text})
        heard: list[str] = []
        try:
            for piece in self._pieces():
                heard.append(piece)
                yield piece
        finally:
            if heard:
                self._turns.append({"role": "assistant", "content": "".join(heard)})
            else:
                self._turns.pop()

    def _pieces(self) -> Iterator[str]:
        body = {"model": self.model, "messages": self._turns, "stream": True}
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=body) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer, self.model)
                for line in answer.iter_lines():
                    yield from _content(line)
        except httpx.HTTPError as error:
            raise ControlLost(f"{type(error).__name__} {error}".strip()) from error


def _content(line: str) -> Iterator[str]:
    """The text in one line of an SSE stream."""
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or data == "[DONE]":
        return
    event = json.loads(data)
    if "error" in event:
        raise ControlLost(str(event["error"].get("message", event["error"])))
    for choice in event.get("choices", ()):
        delta = choice.get("delta", {})
        piece = delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content")
        if piece:
            yield piece


def _refusal(answer: httpx.Response, model: str) -> InhouseError:
    """An OpenAI error object as the error of ours that it was."""
    message = _message(answer)
    retry_after_s = int(answer.headers.get("retry-after", "1"))
    match answer.status_code:
        case 401:
            return Unauthorized(has_key="authorization" in answer.request.headers)
        case 404:
            return ModelNotServed(model)
        case 503 if "stop" in message or "drain" in message:
            return ShuttingDown(retry_after_s)
        case 503:
            return ModelNotReady(model, message, retry_after_s)
        case _:
            return BadRequest(message)


def _message(answer: httpx.Response) -> str:
    try:
        error: Any = answer.json().get("error", {})
        return str(error.get("message", "")) or f"HTTP {answer.status_code}"
    except (json.JSONDecodeError, AttributeError):
        return f"HTTP {answer.status_code}: {answer.text[:200]}"


def first_ready(status: Status) -> str:
    """The model meant when none is named. Raises ModelNotReady or ModelNotServed."""
    ready = [model.name for model in status.models if model.state == "ready"]
    if ready:
        return ready[0]
    if status.models:
        raise ModelNotReady(status.models[0].name, status.models[0].state, 5)
    raise ModelNotServed("none at all")


def api_key(settings: Settings) -> str | None:
    """The key to show to the server, if there is one."""
    key = settings.server.api_key
    return key.get_secret_value() if key else None


def _ask_once(chatter: Chat, message: str, as_json: bool) -> None:
    if as_json:
        output.put_json({"model": chatter.model, "content": "".join(chatter.say(message))})
        return
    for piece in chatter.say(message):
        output.put(piece, end="")
    output.put("")


def _converse(chatter: Chat) -> None:
    output.say(f"{chatter.model}: Ctrl-C stops an answer, Ctrl-D leaves", "dim")
    while (said := _ask("> ")) is not None:
        if said.strip():
            _answer(chatter, said)


def _ask(prompt: str) -> str | None:
    """A line from the terminal, with line editing; None at Ctrl-D. Ctrl-C drops the line."""
    while True:
        try:
            return input(prompt)
        except EOFError:
            output.put("")
            return None
        except KeyboardInterrupt:
            output.put("")


def _answer(chatter: Chat, said: str) -> None:
    """One turn of a conversation that goes on, whatever happens to the turn."""
    pieces = chatter.say(said)
    try:
        for piece in pieces:
            output.put(piece, end="")
    except KeyboardInterrupt:
        pieces.close()
    except InhouseError as error:
        output.show_error(error)
    output.put("")
