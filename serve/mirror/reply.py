"""Requests and replies as values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from serve.mirror.stock import File

JSON = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `headers` by lower-case name, several of one name joined by commas."""

    method: str
    raw_path: bytes
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes of a file that follow a reply's head."""

    file: File
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered: a body, or a part of a file. `length`: what Content-Length says."""

    status: int
    headers: Mapping[str, str]
    length: int = 0
    body: bytes = b""
    part: Part | None = None


def with_json(content: Any) -> Reply:
    """200 with a document."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return with_text(body, JSON)


def with_text(body: bytes, content_type: str) -> Reply:
    """200 with a body of this type."""
    return Reply(200, {"Content-Type": content_type}, len(body), body)


def refusal(status: int, message: str, code: str = "", **headers: str) -> Reply:
    """An error in the Hub's words: the client reads `X-Error-Code`, people `X-Error-Message`."""
    body = json.dumps({"error": message}).encode()
    known = {"Content-Type": JSON, "X-Error-Message": message}
    if code:
        known["X-Error-Code"] = code
    return Reply(status, known | _dashed(headers), len(body), body)


def head(reply: Reply, date: str, is_kept: bool) -> bytes:
    """The reply's head as bytes."""
    lines = [
        f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
        f"Date: {date}",
        f"Connection: {'keep-alive' if is_kept else 'close'}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    if reply.status != HTTPStatus.NOT_MODIFIED:
        lines.append(f"Content-Length: {reply.length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _dashed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
