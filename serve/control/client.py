"""The other side of `control.sock`, for the CLI. Blocking; errors come back as they were raised."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from serve.control.answers import ACTOR
from serve.control.lock import wait_until_free
from serve.control.status import Status
from serve.errors import ControlLost, NotRunning
from serve.fleet import ModelStatus
from serve.quota import Key
from serve.wire import from_wire

_ANSWER_S = 10.0
_WHO = {ACTOR: f"cli:{os.getuid()}"}
_T = TypeVar("_T")
_RECORD = TypeAdapter(dict[str, Any])
_STATUS = TypeAdapter(Status)
_MODEL_STATUS = TypeAdapter(ModelStatus)


class Client:
    """Asks the supervisor that owns `socket`.

    Every method raises NotRunning when nobody answers there, ControlLost when the answer is cut
    or not understood, and whatever the supervisor raised.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def status(self) -> Status:
        """The supervisor, its gateways and models."""
        return _parsed(_STATUS, self._ask("GET", "/status", timeout_s=_ANSWER_S))

    def load(self, name: str) -> ModelStatus:
        """Serve a model; returns when it is ready."""
        return _parsed(_MODEL_STATUS, self._ask("POST", "/load", {"model": name}))

    def unload(self, name: str) -> None:
        """Serve a model no more; returns when its engine is gone."""
        self._ask("POST", "/unload", {"model": name})

    def stop(self, force: bool) -> None:
        """End the supervisor and all it runs; returns when it is gone."""
        self._ask("POST", "/stop", {"force": force}, timeout_s=_ANSWER_S)
        wait_until_free(self._socket)

    def create_key(self, terms: Key) -> dict[str, Any]:
        """A new key on these terms: `text`, which is told only now, and `key`, its card."""
        wish = asdict(terms)
        del wish["id"], wish["digest"]
        return _record(self._ask("POST", "/keys", wish, _ANSWER_S))

    def revoke_key(self, name: str) -> dict[str, Any]:
        """Revoke the key of this id or name; its card."""
        return _record(self._ask("POST", f"/keys/{quote(name, safe='')}/revoke", {}, _ANSWER_S))

    def rotate_key(self, name: str, overlap_s: float) -> dict[str, Any]:
        """A successor, as `create_key` gives it; the old key works for `overlap_s` more."""
        path = f"/keys/{quote(name, safe='')}/rotate"
        return _record(self._ask("POST", path, {"overlap_s": overlap_s}, _ANSWER_S))

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        if not self._socket.exists():
            # Known without dialling: httpcore forgets to close the socket of a failed connect.
            raise NotRunning(str(self._socket))
        transport = httpx.HTTPTransport(uds=str(self._socket))
        try:
            with httpx.Client(transport=transport, timeout=timeout_s) as client:
                url = f"http://control{path}"
                answer = client.request(method, url, json=body, headers=_WHO)
        except httpx.ConnectError as error:
            raise NotRunning(str(self._socket)) from error
        except httpx.HTTPError as error:
            raise ControlLost(f"{type(error).__name__} {error}".strip()) from error
        if answer.is_success:
            return answer.content
        raise _refusal(answer)


def _refusal(answer: httpx.Response) -> Exception:
    try:
        return from_wire(answer.json())
    except json.JSONDecodeError:
        return ControlLost(f"HTTP {answer.status_code}: {answer.text[:200]}")


def _record(content: bytes) -> dict[str, Any]:
    return _parsed(_RECORD, content)


def _parsed(adapter: TypeAdapter[_T], content: bytes) -> _T:
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        raise ControlLost(f"an answer that is not understood: {error}") from error
