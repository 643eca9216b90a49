"""What is kept of an answer while it passes: as little as its books need. Pure."""

import re
from collections.abc import Callable

from serve.gateway.usage import LONG_TAIL_BYTES, TAIL_BYTES, Usage, find_usage, merged, usage_of

_MOST_KEPT_BYTES = 256 * 1024  # of a whole answer
_LEAST_KEPT_BYTES = 16 * 1024
_LEAST_CUT_BYTES = 1024  # a shorter end of a stream is not worth to be cut
_HEAD_BYTES = 4096  # of a stream of Anthropic's, in which the input's tokens stand

_RESPONDED = re.compile(rb"\nevent: response\.(?:completed|failed|incomplete)\b")
_OVERLAP = 40  # bytes, longer than what is looked for
_NAMING = ("/v1/messages", "/v1/responses")  # the routes in which each event has a name
_Count = Callable[[int, int], None]


class StreamNotes:
    """Of a stream. `count` is told how many events have passed, for `slot`: see `Journal.count`."""

    __slots__ = (
        "_count", "_head", "_is_named", "_lines", "_lines_per_event", "_slot", "_tail",
        "_tail_bytes",
    )  # fmt: skip

    def __init__(self, route: str, count: _Count, slot: int) -> None:
        self._count = count
        self._slot = slot
        self._lines = 0
        self._is_named = route in _NAMING
        self._lines_per_event = 3 if self._is_named else 2
        self._tail = b""
        self._tail_bytes = LONG_TAIL_BYTES if route == "/v1/responses" else TAIL_BYTES
        self._head: bytes | None = b"" if route == "/v1/messages" else None

    def note(self, data: bytes) -> bool:
        """More of it has come; whether its last event has begun, after which clients do not wait
        for the stream's end."""
        # Done with every event: what costs least for a short one.
        self._lines = lines = self._lines + data.count(b"\n")
        self._count(self._slot, lines // self._lines_per_event)
        before = self._tail
        tail = before + data
        if len(tail) > _LEAST_CUT_BYTES:
            tail = tail[-self._tail_bytes :]
        self._tail = tail
        if self._is_named:
            return self._note_named(before, data)
        return tail.find(b"data: [DONE]", -20) >= 0

    def _note_named(self, before: bytes, data: bytes) -> bool:
        head = self._head
        if head is None:
            return _RESPONDED.search(before[-_OVERLAP:] + data) is not None
        if len(head) < _HEAD_BYTES and b"\n\n" not in head:
            self._head = head + data
        return self._tail.find(b"event: message_stop", -80) >= 0

    @property
    def events(self) -> int:
        """How many have passed; ends of lines are counted, which costs a tenth of events' ends."""
        return self._lines // self._lines_per_event

    def usage(self) -> Usage | None:
        """What the engine said that it took."""
        first = find_usage(self._head.partition(b"\n\n")[0]) if self._head else None
        return merged(first, find_usage(self._tail[-self._tail_bytes :]))

    def ends_in_an_event(self) -> bool:
        """Whether what has come so far ends in the middle of an event."""
        return bool(self._tail) and not self._tail.endswith((b"\n\n", b"\r\n\r\n"))


class WholeNotes:
    """Of an answer in one piece: all of it if it is not large, otherwise its end."""

    __slots__ = ("_is_cut", "_parts", "_size", "events")

    def __init__(self) -> None:
        self.events = 0
        self._is_cut = False
        self._parts: list[bytes] = []
        self._size = 0

    def note(self, data: bytes) -> bool:
        """More of it has come."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > _MOST_KEPT_BYTES:
            end = b"".join(self._parts)[-_LEAST_KEPT_BYTES:]
            self._parts, self._size, self._is_cut = [end], len(end), True
        return False

    def usage(self) -> Usage | None:
        """What the engine said that it took."""
        answer = b"".join(self._parts)
        return find_usage(answer) if self._is_cut else usage_of(answer)

    def ends_in_an_event(self) -> bool:
        """It has none."""
        return False
