"""What a body may ask for, so that one client cannot hurt an engine that all share.

Most of the published ways to stop an engine with one request are a number that is too large, a
grammar that takes for ever to compile, a medium that is fetched from where the client says, or a
field that was never meant for clients. What is not named here passes: engines learn new fields
faster than gateways.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from serve.errors import BadRequest
from serve.gateway.body import Asked, Looked
from serve.gateway.usual import LARGEST, PLAIN_DEPTH, look_at_plain


@dataclass(frozen=True, slots=True)
class Bounds:
    """The settings `request.*`; see there."""

    max_depth: int = 64
    max_n: int = 16
    max_logprobs: int = 20
    max_stops: int = 16
    max_grammar: int = 64 * 2**10  # bytes
    media_hosts: tuple[str, ...] = ()


_MOST_PROMPTS = 2048  # in one request, as OpenAI has it
_MOST_TOKENS_NAMED = 1024  # in lists and mappings of token ids: each is looked at in every step
_MOST_REPEATS = 1000  # in a regex: automata grow with it
_MOST_LONGER = 8  # times: JSON that is written anew (1e15 has 18 characters then)
_LONGEST_NUMBER = 400  # characters

# Never for clients: they move caches between engines, name engines' own state, or were each the
# way of a published attack. (vLLM: CVE-2026-105755 shared ids, PYSEC-2026-2303 embeddings.)
_OURS = (
    "kv_transfer_params", "request_id", "data_parallel_rank", "prompt_embeds",
    "mm_processor_kwargs", "media_io_kwargs",
)  # fmt: skip
_GRAMMARS = (
    "guided_json", "guided_regex", "guided_grammar", "guided_choice", "structured_outputs",
    "response_format", "format", "text", "structural_tag",
)  # fmt: skip
_COUNTS = ("n", "best_of", "beam_width")
_LOGPROBS = ("logprobs", "top_logprobs", "prompt_logprobs")
_LENGTHS = ("min_tokens", "max_tokens", "max_completion_tokens", "max_output_tokens", "top_k")
_TOKEN_LISTS = ("logit_bias", "allowed_token_ids", "stop_token_ids", "bad_words")
_PROMPTS = ("prompt", "input", "documents")
_TEXTS = ("prompt", "input")

_SHORT_BYTES = 4096  # of a body, whose brackets are counted in a moment
_START_BYTES = 64  # of a value, by which it is looked for in the body

# The last of several equal keys counts, as for engines.
_look = msgspec.json.Decoder(Looked).decode
_look_into = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_decode = msgspec.json.Decoder().decode

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ALIKE = bytes.maketrans(b"{}", b"[]")
_WINDOW_BYTES = 2**16
_QUOTE, _LIST, _NESTS = ord('"'), ord("["), b"[{"
_REPEATS = re.compile(r"\{\s*(\d+)?\s*(?:,\s*(\d+)?\s*)?\}")
_MEDIA_KEYS = frozenset(
    ("url", "uri", "image_url", "video_url", "audio_url", "file_url", "image", "video", "audio")
)
# Below these keys nobody fetches anything: what a tool is, or what a model said to one.
_NEVER_MEDIA = frozenset(
    ("tools", "functions", "arguments", "metadata", "json_schema", "schema", "parameters")
    + ("structured_outputs", "response_format", "guided_json", "chat_template_kwargs", "text")
)


def check(body: bytes, bounds: Bounds) -> None:
    """BadRequest (with `param`) if the body asks for more than `bounds` allow. Never quotes it.

    Reads a JSON object; what is none is left for those who decode it.
    """
    try:
        looked = _look(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        _check_depth(body, bounds.max_depth, bounds.max_depth)
        return
    check_decoded(looked, body, bounds)


def check_asked(asked: Asked, bounds: Bounds) -> None:
    """The same for a body that has been read."""
    if asked.frame:
        if asked.answers > bounds.max_n or bounds.max_depth < PLAIN_DEPTH:
            check(asked.body, bounds)
    elif asked.looked is not None:
        check_decoded(asked.looked, asked.body, bounds)


def check_decoded(looked: Looked, body: bytes, bounds: Bounds) -> None:
    """The same where `looked` is what `body` holds at its top level."""
    plain, text = _plain_part(looked)
    others = [(name, bytes(raw)) for name, raw in looked.items() if name != plain]
    most = bounds.max_depth
    if len(body) > _SHORT_BYTES or _brackets(body) > most:
        nested = [value for _, value in others if value[0] in _NESTS]
        if plain and most >= PLAIN_DEPTH and _is_flat_but_for(nested, text, body, most):
            for value in nested:
                _check_depth(value, most - 1, most)
        else:
            _check_depth(body, most, most)
    for name, value in others:
        if name in _CHECKS and value != b"null":
            _CHECKS[name](name, value, bounds)
    for name, value in others:
        if name in _MEDIA_KEYS or value[0] in _NESTS and name not in _NEVER_MEDIA:
            for key, url in _media_in(name, value):
                _check_url(key, url, bounds.media_hosts)


def _plain_part(looked: Looked) -> tuple[str, bytes]:
    """What is text and nothing else, as is usual: the name of the prompt and the prompt. It needs
    no other look. The name is empty if there is no such prompt."""
    if (messages := looked.get("messages")) is not None:
        try:
            look_at_plain(messages)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return "", b""
        return "messages", bytes(messages)
    for name in _TEXTS:
        if name in looked and (text := bytes(looked[name]))[0] == _QUOTE:
            return name, text
    return "", b""


def _is_flat_but_for(nested: list[bytes], text: bytes, body: bytes, most: int) -> bool:
    """Whether a body has so few brackets in none of these values of its top level that nothing can
    be nested deeper there, in values that no longer count for example. False if that is not told
    in a moment."""
    start = body.find(text[:_START_BYTES])
    if not body.startswith(text, start):
        return False
    around = body[:start] + body[start + len(text) :]
    return _brackets(around) - sum(map(_brackets, nested)) <= most


def _brackets(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _everything(raw: bytes | msgspec.Raw) -> Any:
    """Of a part whose syntax is good already: only a number of thousands of digits is refused."""
    try:
        return _decode(raw)
    except msgspec.MsgspecError:
        raise BadRequest("The body has a number that is too large.") from None
    except UnicodeDecodeError:  # which nobody has seen in what was only passed over
        raise BadRequest("The body is not valid JSON.") from None


def _refuse(name: str, problem: str) -> BadRequest:
    return BadRequest(f"{name} {problem}.", param=name)


def _check_depth(part: bytes, most: int, most_told: int) -> None:
    """Without decoding, which would build what somebody made to be large: only brackets that no
    string holds are left, and pairs of them are removed from the inside out, once per level."""
    if _brackets(part) <= most:
        return
    brackets = _brackets_in(part.replace(b"\\\\", b"").replace(b'\\"', b""))
    for _ in range(most):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise BadRequest(f"The body is nested deeper than {most_told} levels.")


def _brackets_in(unescaped: bytes) -> bytes:
    """Those that are in no string, as if all were of one kind. A window at a time, for many short
    strings take much memory."""
    found, is_string = [], 0
    for start in range(0, len(unescaped), _WINDOW_BYTES):
        parts = unescaped[start : start + _WINDOW_BYTES].split(b'"')
        found.append(b"".join(parts[is_string::2]).translate(_ALIKE, _NO_BRACKETS))
        is_string ^= len(parts) - 1 & 1
    return b"".join(found)


def _check_ours(name: str, raw: bytes, bounds: Bounds) -> None:
    raise _refuse(name, "is not for clients")


def _check_count(name: str, raw: bytes, bounds: Bounds) -> None:
    if not _within(raw, 1, bounds.max_n):
        raise _refuse(name, f"must be between 1 and {bounds.max_n}")


def _check_logprobs(name: str, raw: bytes, bounds: Bounds) -> None:
    # -1 asks for those of the whole vocabulary.
    if raw not in (b"true", b"false") and not _within(raw, 0, bounds.max_logprobs):
        raise _refuse(name, f"must be between 0 and {bounds.max_logprobs}")


def _check_length(name: str, raw: bytes, bounds: Bounds) -> None:
    if not _within(raw, -1, LARGEST):
        raise _refuse(name, f"must be between -1 and {LARGEST}")


def _check_tokens(name: str, raw: bytes, bounds: Bounds) -> None:
    found = _everything(raw)
    if isinstance(found, list | dict) and len(found) > _MOST_TOKENS_NAMED:
        raise _refuse(name, f"may have {_MOST_TOKENS_NAMED} entries at most")


def _check_stops(name: str, raw: bytes, bounds: Bounds) -> None:
    found = _everything(raw)
    if isinstance(found, list) and len(found) > bounds.max_stops:
        raise _refuse(name, f"may have {bounds.max_stops} entries at most")


def _check_prompts(name: str, raw: bytes, bounds: Bounds) -> None:
    if not raw.startswith(b"["):
        return
    # Token ids of one prompt are numbers, and as many as the context has room for.
    found = _everything(raw)
    if len(found) > _MOST_PROMPTS and not isinstance(found[0], int):
        raise _refuse(name, f"may have {_MOST_PROMPTS} entries at most")


def _check_grammar(name: str, raw: bytes, bounds: Bounds) -> None:
    if len(raw) > bounds.max_grammar:
        raise _refuse(name, f"may have {bounds.max_grammar} bytes at most")
    for regex in _regexes(name, _everything(raw)):
        for counts in _REPEATS.findall(regex):
            if any(count and int(count) > _MOST_REPEATS for count in counts):
                raise _refuse(name, f"may repeat nothing more than {_MOST_REPEATS} times")


def _check_tools(name: str, raw: bytes, bounds: Bounds) -> None:
    found = _everything(raw)
    if len(raw) * _MOST_LONGER <= bounds.max_grammar or not isinstance(found, list):
        return
    if any(len(msgspec.json.encode(tool)) > bounds.max_grammar for tool in found):
        raise _refuse(name, f"may have {bounds.max_grammar} bytes each at most")


def _within(raw: bytes, least: int, most: int) -> bool:
    """Whether a number is: engines also take `"5"` and `5.0` for it. What is no number at all is
    theirs to refuse."""
    if raw.isdigit() and len(raw) < 10:
        return least <= int(raw) <= most
    if len(raw) > _LONGEST_NUMBER:
        return False
    found = _everything(raw)
    try:
        value = float(found) if isinstance(found, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return isinstance(found, str) and not found.strip().lstrip("+-")[:1].isdigit()
    return math.isnan(value) or least <= value <= most


def _regexes(name: str, found: Any) -> Iterator[str]:
    """Every regular expression in a grammar: the value itself, `regex`, a schema's `pattern`."""
    if isinstance(found, str) and name in ("guided_regex", "regex", "pattern"):
        yield found[:LARGEST]
    elif isinstance(found, dict):
        for key, value in found.items():
            yield from _regexes(key, value)
    elif isinstance(found, list):
        for value in found:
            yield from _regexes("", value)


def _media_in(name: str, raw: bytes) -> Iterator[tuple[str, str]]:
    """Media in a value of the top level. What is usual, a list of messages that are plain text, is
    not built to find that there are none."""
    if raw[0] == _QUOTE:
        yield from _media({name: _everything(raw)}) if name in _MEDIA_KEYS else ()
    elif raw[0] == _LIST:
        try:
            messages = _look_into(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):  # of something else
            yield from _media(_everything(raw))
            return
        for message in messages:
            if any(memoryview(each)[0] in _NESTS or key in _MEDIA_KEYS
                   for key, each in message.items()):  # fmt: skip
                yield from _media({key: _everything(each) for key, each in message.items()})
    elif raw[0] in _NESTS:
        yield from _media({name: _everything(raw)})


def _media(found: Any) -> Iterator[tuple[str, str]]:
    """Every address below `found` that an engine might fetch, with its key."""
    if isinstance(found, list):
        for each in found:
            yield from _media(each)
    elif isinstance(found, dict):
        for key, value in found.items():
            if isinstance(value, str) and key in _MEDIA_KEYS:
                yield key, value
            # A tool call's `input` is whatever the tool takes; the body's own has messages.
            elif key not in _NEVER_MEDIA and not (key == "input" and "name" in found):
                yield from _media(value)


def _check_url(key: str, url: str, hosts: tuple[str, ...]) -> None:
    scheme, separator, _ = url.strip().partition(":")
    if not separator or scheme.lower() == "data":
        return  # no address at all (base64), or one that has all in itself
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
    except ValueError:
        host = ""
    # A backslash or a user name is read by some as part of the host and by others not.
    is_plain = "\\" not in url and "@" not in url.partition("//")[2].partition("/")[0]
    if scheme.lower() in ("http", "https") and is_plain and host.lower() in hosts:
        return
    raise _refuse(key, "may not be fetched: send the content itself, as a data: URL")


_CHECKS: Mapping[str, Callable[[str, bytes, Bounds], None]] = (
    dict.fromkeys(_OURS, _check_ours)
    | dict.fromkeys(_GRAMMARS, _check_grammar)
    | dict.fromkeys(_COUNTS, _check_count)
    | dict.fromkeys(_LOGPROBS, _check_logprobs)
    | dict.fromkeys(_LENGTHS, _check_length)
    | dict.fromkeys(_TOKEN_LISTS, _check_tokens)
    | dict.fromkeys(_PROMPTS, _check_prompts)
    | dict.fromkeys(("stop", "stop_sequences"), _check_stops)
    | {"tools": _check_tools}
)
