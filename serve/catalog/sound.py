"""Is there nothing wrong in a catalog file? Quick, since nearly every command asks.

What is wrong, and where, `serve.catalog.complaint` tells, with pydantic, which takes longer to
import than all files take to be read. A doubt is no harm: then it is asked, and has the last word.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from serve.catalog import rules

_Check = Callable[[Any], bool]


def is_sound(content: Any) -> bool:
    """True: `CatalogFile` accepts it. False: it may or may not."""
    return _FILE(content)


def _text(value: Any) -> bool:
    return type(value) is str


def _words(value: Any) -> bool:
    return type(value) is str and value != ""


def _value(value: Any) -> bool:
    return type(value) in (str, int, bool) or _number(value)


def _number(value: Any) -> bool:
    # Whole numbers that a float cannot hold are for the other reader.
    return (type(value) is int and abs(value) < 2**53) or (
        type(value) is float and math.isfinite(value)
    )


def _integer(value: Any) -> bool:
    return type(value) is int


def _count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _context(value: Any) -> bool:
    return type(value) is int and value >= rules.SHORTEST_CONTEXT


def _permission(value: Any) -> bool:
    return value is True or value is False or value in ("yes", "no", "conditions", "unknown")


def _like(pattern: str) -> _Check:
    matches = re.compile(pattern.removeprefix("^").removesuffix("$")).fullmatch
    return lambda value: type(value) is str and matches(value) is not None


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _list(check: _Check) -> _Check:
    return lambda value: type(value) is list and all(map(check, value))


def _mapping(check: _Check) -> _Check:
    return lambda value: type(value) is dict and all(map(check, value.values()))


def _entry(checks: Mapping[str, _Check], *required: str) -> _Check:
    """A mapping with these keys, each as it must be, and no other."""

    def check(value: Any) -> bool:
        return (
            type(value) is dict
            and all(name in value for name in required)
            and all(name in checks and checks[name](each) for name, each in value.items())
        )

    return check


def _both(first: _Check, problem: Callable[[Any], str | None]) -> _Check:
    return lambda value: first(value) and problem(value) is None


_REPO = _like(rules.REPO)
_GEOMETRY = _entry(
    dict.fromkeys(("layers", "hidden", "heads", "vocab"), _count)
    | dict.fromkeys(
        ("kv_heads", "head_dim", "experts", "experts_per_token", "window", "kv_lora_rank",
         "q_lora_rank", "rope_head_dim", "nope_head_dim", "value_head_dim"),
        _or_none(_count),
    ),
    "layers", "hidden", "heads", "vocab",
)  # fmt: skip
_SAMPLING = _entry(
    {
        "temperature": _or_none(lambda value: _number(value) and value >= 0),
        "top_p": _or_none(lambda value: _number(value) and 0 < value <= 1),
        "top_k": _or_none(_integer),
        "min_p": _or_none(lambda value: _number(value) and 0 <= value <= 1),
        "repetition_penalty": _or_none(lambda value: _number(value) and value > 0),
        "presence_penalty": _or_none(_number),
    }
)
_EXTENSION = _entry(
    {"context": _context, "how": _words, "engine_args": _or_none(_mapping(_value))},
    "context", "how",
)  # fmt: skip
_WHEEL = _entry(
    {"package": _words, "version": _words, "sha256": _like(rules.SHA256), "member": _words},
    "package", "version", "sha256", "member",
)  # fmt: skip
_TOOL_TEMPLATE = _entry({"file": _words, "parser": _words}, "file", "parser")
_LICENSE = _entry({"name": _words, "commercial": _permission, "note": _text}, "name", "commercial")
_DEFAULTS: Mapping[str, _Check] = {
    "architecture": _or_none(_words),
    "license": _or_none(_words),
    "context": _or_none(_context),
    "extension": _or_none(_EXTENSION),
    "parameters": _or_none(_words),
    "languages": _list(_like(rules.LANGUAGE)),
    "tool_call_parser": _or_none(_words),
    "reasoning_parser": _or_none(_words),
    "tool_template": _or_none(_TOOL_TEMPLATE),
    "sampling": _SAMPLING,
    "sampling_without_thinking": _SAMPLING,
    "engine_args": _mapping(_value),
    "remote_code": _or_none(_like(rules.REMOTE_CODE)),
    "modelscope": _or_none(_like(rules.REPO_OR_ORGANISATION)),
    "summary": _text,
}
_MODEL: Mapping[str, _Check] = {
    "family": _words,
    "repo": _or_none(_REPO),
    "revision": _or_none(_words),
    "wheel": _or_none(_WHEEL),
    "dir": _or_none(_text),
    "bundle": _or_none(_text),
    "aliases": _list(_like(rules.NAME)),
    "variants": _mapping(_REPO),
    "geometry": _or_none(_GEOMETRY),
    "weights_bytes": _or_none(_count),
    "recommended": _or_none(_count),
}
_FILE = _entry(
    {
        "licenses": _mapping(
            _both(_LICENSE, lambda it: rules.license_problem(it["commercial"], it.get("note")))
        ),
        "families": _mapping(_entry(_DEFAULTS)),
        "models": _mapping(_both(_entry({**_DEFAULTS, **_MODEL}, "family"), rules.source_problem)),
    }
)
