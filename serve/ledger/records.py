"""Audit records: what is to be recorded, and what is, also as lines for other programs. Pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

# Facility 13, "log audit"; severity 5 (notice), or 4 (warning) for what was refused or failed.
_FACILITY, _NOTICE, _WARNING = 13, 5, 4
_FINE = ("ok", "asked")
# The number that RFC 5612 gives to those who have none of their own.
_ELEMENT = "audit@32473"
_PARAMETERS = ("seq", "actor", "address", "object", "result", "request", "mac")
_CONTROLS = dict.fromkeys((*range(32), 127), "?")
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "]": r"\]"} | _CONTROLS)


@dataclass(frozen=True, slots=True)
class Deed:
    """Who did what, when, from where, and how it ended: never a text, never a key's.

    `actor`: "key:ID", "cli:UID" or "system". `at`: unix seconds, 0: when it is written.
    `facts`: what JSON can hold.
    """

    action: str = ""
    object: str = ""
    result: str = "ok"
    actor: str = "system"
    address: str = ""
    request: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """A deed in its place. `seq`: 1 for the first ever. `mac`: hex."""

    seq: int
    at: float
    actor: str
    address: str
    action: str
    object: str
    result: str
    request: str
    facts: Mapping[str, Any]
    mac: str

    def to_json(self) -> str:
        """One line of JSON, with the time also as text."""
        return json.dumps(asdict(self) | {"time": _moment(self.at)}, ensure_ascii=False)

    def to_syslog(self, host: str) -> str:
        """One message of RFC 5424, without a line end. `host`: what this machine is called."""
        severity = _NOTICE if self.result in _FINE else _WARNING
        values = {name: str(getattr(self, name)).translate(_ESCAPED) for name in _PARAMETERS}
        element = " ".join(f'{name}="{value}"' for name, value in values.items())
        facts = json.dumps(self.facts, sort_keys=True, separators=(",", ":"))
        return (
            f"<{_FACILITY * 8 + severity}>1 {_moment(self.at)} {_word(host, 255)} inhouse - "
            f"{_word(self.action, 32)} [{_ELEMENT} {element}] {facts}"
        )


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain, as its writer knew it. `is_after_cut`: and said that it was cut."""

    seq: int
    mac: str
    is_after_cut: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A chain without a fault: `first` to `last` (numbers, 0: there is none), ending with `mac`."""

    first: int
    last: int
    mac: str

    @property
    def count(self) -> int:
        """How many records there are."""
        return self.last - self.first + 1 if self.last else 0


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def _word(text: str, most: int) -> str:
    """Printable ASCII without spaces, as the head of a message wants it."""
    return "".join(c if 33 <= ord(c) <= 126 else "?" for c in text)[:most] or "-"
