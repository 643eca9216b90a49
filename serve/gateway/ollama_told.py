"""What an engine answers in OpenAI's words, in those of Ollama. Pure but for its clock."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

Record = dict[str, Any]
_ENDED_EARLY = "The answer ended before it was complete."
_NOT_UNDERSTOOD = {"error": "The engine's answer is not understood."}


class Telling:
    """One answer on its way. `is_chat`: in the shape of `/api/chat`, else of `/api/generate`.

    Durations are nanoseconds, as Ollama has them; `load_duration` is 0, since models are loaded
    before they are asked for.
    """

    def __init__(self, model: str, is_chat: bool) -> None:
        self._model = model
        self._is_chat = is_chat
        self._started_ns = time.perf_counter_ns()
        self._first_ns = 0  # when the first token came
        self._reason = "stop"
        self._usage: Record = {}
        self._calls: dict[int, Record] = {}  # tool calls that come in pieces, by their index
        self._is_over = False

    def whole(self, answer: Record) -> Record:
        """The one record that an answer in one piece becomes."""
        self._first_ns = self._started_ns
        self._note(answer)
        told = next(self._tell(answer), None) or self._piece("")
        if self._calls:
            told["message"]["tool_calls"] = self._take_calls()
        return told | self._end()

    def event(self, data: bytes) -> Iterator[Record]:
        """The records that the data of one server-sent event becomes; none after an error."""
        if self._is_over:
            return
        if data == b"[DONE]":
            self._is_over = True
            if self._calls:
                yield self._piece("", tool_calls=self._take_calls())
            yield self._piece("") | self._end()
            return
        answer = read_record(data)
        if answer is None or "error" in answer:
            self._is_over = True
            yield error_record(answer or _NOT_UNDERSTOOD, 500)
            return
        self._note(answer)
        yield from self._tell(answer)

    def close(self) -> Iterator[Record]:
        """What must be said at the end of the stream: nothing, if it came to its end."""
        if not self._is_over:
            self._is_over = True
            yield {"error": _ENDED_EARLY}

    def _note(self, answer: Record) -> None:
        self._usage = answer.get("usage") or self._usage
        for choice in answer.get("choices") or ():
            if choice.get("finish_reason"):
                self._reason = "length" if choice["finish_reason"] == "length" else "stop"
            for call in _part(choice).get("tool_calls") or ():
                self._add(call)

    def _add(self, call: Record) -> None:
        known = self._calls.setdefault(call.get("index", len(self._calls)), {"arguments": ""})
        function = call.get("function") or {}
        known["name"] = function.get("name") or known.get("name", "")
        known["arguments"] += function.get("arguments") or ""

    def _take_calls(self) -> list[Record]:
        calls, self._calls = self._calls, {}
        return [
            {"function": {"name": call["name"], "arguments": _arguments(call["arguments"])}}
            for _, call in sorted(calls.items())
        ]

    def _tell(self, answer: Record) -> Iterator[Record]:
        for choice in answer.get("choices") or ():
            part = _part(choice)
            text = part.get("content") or choice.get("text") or ""
            thinking = part.get("reasoning") or part.get("reasoning_content") or ""
            if not (text or thinking):
                continue
            self._first_ns = self._first_ns or time.perf_counter_ns()
            told = self._piece(text, **({"thinking": thinking} if thinking else {}))
            yield told | _logprobs(choice)

    def _piece(self, text: str, **more: Any) -> Record:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        told: Record = {"model": self._model, "created_at": now, "done": False}
        if self._is_chat:
            return told | {"message": {"role": "assistant", "content": text} | more}
        return told | {"response": text} | more

    def _end(self) -> Record:
        now_ns = time.perf_counter_ns()
        first_ns = self._first_ns or now_ns
        return {
            "done": True,
            "done_reason": self._reason,
            "total_duration": now_ns - self._started_ns,
            "load_duration": 0,
            "prompt_eval_count": self._usage.get("prompt_tokens", 0),
            "prompt_eval_duration": first_ns - self._started_ns,
            "eval_count": self._usage.get("completion_tokens", 0),
            "eval_duration": now_ns - first_ns,
        }


def read_record(content: bytes) -> Record | None:
    """A JSON object; None if it is none."""
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def loaded(model: str, is_chat: bool, reason: str) -> Record:
    """The answer to a request that only wants the model to be there. `reason`: "load", "unload"."""
    told = Telling(model, is_chat)
    return told._piece("") | {"done": True, "done_reason": reason}


def embedded(answer: Record, model: str, is_old: bool) -> Record:
    """The answer of `/v1/embeddings` as that of `/api/embed`, or of the old `/api/embeddings`."""
    vectors = [row.get("embedding") for row in answer.get("data") or ()]
    if is_old:
        return {"embedding": vectors[0] if vectors else []}
    count = (answer.get("usage") or {}).get("prompt_tokens", 0)
    return {"model": model, "embeddings": vectors, "prompt_eval_count": count}


def error_record(answer: Any, status: int) -> Record:
    """Ollama's error, out of any that an engine or we have made."""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail")
    return {"error": error if isinstance(error, str) and error else f"status {status}"}


def _part(choice: Record) -> Record:
    return choice.get("delta") or choice.get("message") or {}


def _arguments(text: str) -> Any:
    """An object, as Ollama's clients want it; a model may have written something else."""
    try:
        made = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, RecursionError):
        made = None
    return made if isinstance(made, dict) else {"text": text}


def _logprobs(choice: Record) -> Record:
    rows = (choice.get("logprobs") or {}).get("content")
    if not rows:
        return {}
    return {
        "logprobs": [
            _logprob(row) | {"top_logprobs": [_logprob(top) for top in row.get("top_logprobs", ())]}
            for row in rows
        ]
    }


def _logprob(row: Record) -> Record:
    return {"token": row["token"], "logprob": row["logprob"]}
