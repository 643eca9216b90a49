"""The lines of a batch: what a client may write in one, and what one of the answers looks like."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from serve.gateway.batch_book import Fault, Line
from serve.gateway.errors import answer as answer_error
from serve.serving_errors import RequestError

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
MOST_LINES = 50_000  # as OpenAI has it
_MOST_FAULTS = 100  # that are told
_LONGEST_ID = 512


class Ask(msgspec.Struct, frozen=True):
    """One line of an input file."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Peek(msgspec.Struct):
    stream: Any = None


def split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a text that comes in pieces, without their ends."""
    held: list[bytes] = []
    for piece in pieces:
        first, *rest = piece.split(b"\n")
        held.append(first)
        if rest:
            yield b"".join(held)
            yield from rest[:-1]
            held = [rest[-1]]
    yield b"".join(held)


def read(lines: Iterable[bytes]) -> Iterator[tuple[int, Ask]]:
    """Every request with the number of its line, of an input in which `check` found no fault."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, msgspec.json.decode(line, type=Ask)


def check(lines: Iterable[bytes], endpoint: str) -> tuple[int, list[Fault]]:
    """How many requests there are, and what is wrong with them."""
    count, faults = 0, []
    known: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        count += 1
        if count > MOST_LINES:
            faults.append(Fault("too_many_requests", f"There may be {MOST_LINES} requests."))
            break
        if (fault := _fault(number, line, endpoint, known)) is not None:
            faults.append(fault)
            if len(faults) >= _MOST_FAULTS:
                break
    if not count:
        faults.append(Fault("empty_file", "The file has no requests."))
    return count, faults


def _fault(number: int, line: bytes, endpoint: str, known: set[str]) -> Fault | None:
    """What is wrong with a line. Never quotes it."""
    try:
        ask = msgspec.json.decode(line, type=Ask)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        said = "The line must be a JSON object with custom_id, method, url and body."
        return Fault("invalid_json_line", said, number)
    if ask.method != "POST":
        return Fault("invalid_method", "The method must be POST.", number, "method")
    if ask.url != endpoint:
        return Fault("mismatched_url", "The url must be the batch's endpoint.", number, "url")
    if ask.custom_id in known or len(ask.custom_id) > _LONGEST_ID:
        said = "Each custom_id must be short and there only once."
        return Fault("duplicate_custom_id", said, number, "custom_id")
    known.add(ask.custom_id)
    try:
        is_stream = msgspec.json.decode(ask.body, type=_Peek).stream
    except msgspec.ValidationError:
        return Fault("invalid_request", "The body must be an object.", number, "body")
    if is_stream:
        return Fault("invalid_request", "A batch cannot stream.", number, "body.stream")
    return None


def answered(number: int, ask: Ask, id: str, status: int, body: bytes) -> Line:
    """What came back, as OpenAI's output files have it."""
    try:
        content: Any = msgspec.Raw(msgspec.json.format(body, indent=-1))
    except msgspec.DecodeError:
        content = body.decode("utf-8", "replace")
    response = {"status_code": status, "request_id": id, "body": content}
    return _line(number, ask, id, response, None, is_ok=status == 200)


def refused(number: int, ask: Ask, id: str, error: RequestError) -> Line:
    """What a client would have been told, had it asked itself."""
    status, _, body = answer_error(error, ask.url)
    return answered(number, ask, id, status, body)


def not_asked(number: int, ask: Ask, id: str, code: str, message: str) -> Line:
    """Of a request that was never made."""
    error = {"code": code, "message": message}
    return _line(number, ask, id, None, error, is_ok=False)


def _line(
    number: int,
    ask: Ask,
    id: str,
    response: dict[str, Any] | None,
    error: dict[str, str] | None,
    is_ok: bool,
) -> Line:
    row = {
        "id": f"batch_req_{id}",
        "custom_id": ask.custom_id,
        "response": response,
        "error": error,
    }
    return Line(number, is_ok, msgspec.Raw(msgspec.json.encode(row)))
